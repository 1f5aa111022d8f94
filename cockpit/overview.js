// What the guest is, its addresses, and what it is doing now.

import { el, facts, fill, table } from "./dom.js";
import { metricsView } from "./metrics.js";
import { fault } from "./qgactl.js";

export function overviewPanel(element, guest) {
    const system = section("System");
    const network = section("Network");
    const metrics = section("Now");
    element.classList.add("qga-columns");
    element.append(el("div", {}, system, network), metrics);
    load(guest, "os", system, systemFacts);
    load(guest, "net", network, interfaces);
    return metricsView(metrics.lastChild, guest);
}

function section(title) {
    return el("section", { class: "qga-card", "aria-label": title }, el("h2", {}, title), el("div", {}, "Loading…"));
}

function load(guest, word, { lastChild: body }, view) {
    guest.ask(word).then(view).catch(fault).then(shown => fill(body, shown));
}

function systemFacts({ "host-name": name, os, timezone }) {
    return facts([
        ["Host name", name],
        ["System", os["pretty-name"] || os.name || os.id],
        ["Kernel", os["kernel-release"]],
        ["Machine", os.machine],
        ["Time zone", timezone.zone || `${timezone.offset / 3600} h from UTC`],
    ]);
}

function interfaces(found) {
    return table("Network interfaces", ["Interface", "Hardware address", "Addresses"], found.map(each => [
        each.name,
        each["hardware-address"] || "",
        (each["ip-addresses"] || []).map(one => el("div", {}, `${one["ip-address"]}/${one.prefix}`)),
    ]));
}
