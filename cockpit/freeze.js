// Freezes and thaws the guest's filesystems, and warns for as long as they are frozen.

import { alert, button, el, fill } from "./dom.js";
import { fault } from "./qgactl.js";

const INTERVAL = 10000; // milliseconds between looks at what others have frozen or thawed

export class FreezeControl {
    constructor(guest) {
        this.guest = guest;
        this.button = button("Freeze…", "secondary", () => this.confirm(), { disabled: true });
        this.warning = el("div", { class: "qga-warning" });
        this.timer = window.setInterval(() => document.hidden || this.look(), INTERVAL);
        this.look();
    }

    stop() {
        window.clearInterval(this.timer);
        this.stopped = true;
    }

    // Faults are shown by whichever panel is open, so that there is one message for each.
    async look() {
        if (this.busy)
            return;
        const { status } = await this.guest.ask("status").catch(() => ({}));
        if (status && !this.busy && !this.stopped)
            this.view(status);
    }

    view(status) {
        const frozen = status === "frozen";
        this.button.disabled = status !== "thawed";
        if (frozen !== this.frozen)
            fill(this.warning, frozen ? this.frozenWarning() : null);
        this.frozen = frozen;
    }

    frozenWarning() {
        return alert("warning", "The filesystems of this guest are frozen",
            "Programs that write to them wait, and the agent refuses most requests, until they are thawed.",
            button("Thaw", "primary", () => this.change("thaw")));
    }

    confirm() {
        const title = el("h1", { class: "pf-v6-c-modal-box__title", id: "freeze-title" },
            "Freeze the filesystems of ", el("b", {}, this.guest.name), "?");
        const dialog = el("dialog", { class: "pf-v6-c-modal-box pf-m-sm", "aria-labelledby": "freeze-title" },
            el("header", { class: "pf-v6-c-modal-box__header" }, title),
            el("div", { class: "pf-v6-c-modal-box__body" },
                "Programs in the guest that write to its filesystems wait until you thaw them, or until the " +
                "agent does after its freeze-timeout."),
            el("footer", { class: "pf-v6-c-modal-box__footer" },
                button("Freeze", "warning", () => { dialog.close(); this.change("freeze") }),
                button("Cancel", "link", () => dialog.close(), { autofocus: true })));
        dialog.addEventListener("close", () => dialog.remove());
        this.warning.after(dialog);
        dialog.showModal();
    }

    async change(word) {
        this.busy = this.button.disabled = true;
        const failure = await this.guest.ask(word).then(() => null, error => error);
        this.busy = false;
        this.frozen = undefined;
        await this.look();
        if (failure)
            this.warning.append(fault(failure));
    }
}
