// Filesystems and how full they are.

import { button, el, fill, table } from "./dom.js";
import { percent, size } from "./format.js";
import { fault } from "./qgactl.js";

const HEADS = ["Mounted at", "Device", "Type", "Size", "Used", "Free", "Use"];

export function filesystemsPanel(element, guest) {
    const body = el("div", {}, "Loading…");
    const refresh = () => guest.ask("fs")
            .then(found => table("Filesystems", HEADS, found.map(row)))
            .catch(fault)
            .then(shown => fill(body, shown));
    element.append(body, button("Refresh", "secondary", refresh));
    refresh();
    return () => {};
}

function row(filesystem) {
    const { mountpoint, name, type, "used-bytes": used, "total-bytes": total } = filesystem;
    const known = Number.isFinite(used) && Number.isFinite(total);
    return [mountpoint, name, type, ...(known ? sizes(used, total) : ["unknown", "", "", ""])];
}

function sizes(used, total) {
    const text = percent(used, total);
    const meter = el("meter", { min: 0, max: total, value: used, high: 0.9 * total, "aria-label": text });
    return [size(total), size(used), size(total - used), el("span", { class: "qga-use" }, meter, text)];
}
