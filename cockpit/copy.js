// Copies files and directories between this host and the guest.

import { alert, button, el, fill } from "./dom.js";
import { counted, size } from "./format.js";
import { CANCELLED, fault } from "./qgactl.js";

const HERE = "Path on this host";
const THERE = "Path in the guest";

export function copyPanel(element, guest) {
    const forms = [
        copyForm(guest, "Copy into the guest", HERE, THERE, (from, to) => [from, `:${to}`]),
        copyForm(guest, "Copy out of the guest", THERE, HERE, (from, to) => [`:${from}`, to]),
    ];
    element.classList.add("qga-columns");
    element.append(...forms.map(({ form }) => form));
    return shown => shown === null && forms.forEach(({ cancel }) => cancel());
}

function copyForm(guest, title, source, target, words) {
    const [from, to] = [field(source), field(target)];
    const result = el("div", { class: "qga-result", "aria-live": "polite" });
    let job = new AbortController();
    const cancel = () => job.abort(CANCELLED);
    const start = el("button", { type: "submit", class: "pf-v6-c-button pf-m-primary" }, "Copy");
    const stop = button("Cancel", "link", cancel, { disabled: true });

    async function copy() {
        start.disabled = true;
        stop.disabled = false;
        fill(result, "Copying…");
        job = new AbortController();
        const paths = words(from.input.value, to.input.value);
        fill(result, await guest.copy(...paths, job.signal).then(report).catch(fault));
        start.disabled = false;
        stop.disabled = true;
    }

    const form = el("form", { class: "qga-card pf-v6-c-form", "aria-label": title,
                              submit: event => { event.preventDefault(); copy() } },
        el("h2", {}, title), from.group, to.group,
        el("p", {}, "Directories are copied with everything in them. Files that exist are replaced."),
        el("div", { class: "qga-actions" }, start, stop), result);
    return { form, cancel };
}

// Both sides need absolute paths: qgactl has no directory of its own here.
function field(name) {
    const input = el("input", { type: "text", required: true, pattern: "/.*", spellcheck: "false",
                                autocapitalize: "off", title: "An absolute path, beginning with /" });
    const group = el("label", { class: "pf-v6-c-form__group" },
        el("span", { class: "pf-v6-c-form__label-text" }, name),
        el("span", { class: "pf-v6-c-form-control" }, input));
    return { input, group };
}

function report(summary) {
    const copied = `${counted(summary.files, "file")}, ${size(summary.bytes)}, in ${summary.seconds.toFixed(1)} s`;
    const skipped = summary.skipped.map(({ path, reason }) => `${path}: ${reason}`);
    const notes = [...skipped, ...(summary.notes || [])].join("\n");
    return skipped.length ? alert("warning", `Copied ${copied}; skipped:`, notes) : alert("success", `Copied ${copied}`, notes);
}
