// The guests of this host.

import { alert, button, el, fill, label, table } from "./dom.js";
import { fault, isLimited, permission } from "./qgactl.js";
import { listGuests } from "./search.js";

const cockpit = window.cockpit;
const INTERVAL = 10000; // milliseconds between updates
const KINDS = { answers: "success", frozen: "warning" }; // any other state is a fault
const CHANNEL = "The command “qgactl channel” shows how to add an agent port to a guest.";
const LIMITS = "Guests of other users are not shown, and those of the system’s libvirt may be out of reach.";
const HEADS = ["Guest", "State", "Operating system", "Host name", "Addresses"];

export class GuestList {
    constructor(page) {
        this.body = el("div", { class: "qga-body" }, "Looking for guests…");
        fill(page,
            el("header", { class: "qga-header" },
                el("h1", {}, "Guests"),
                button("Refresh", "secondary", () => this.refresh())),
            this.body);
        this.known = () => this.refresh();
        permission.addEventListener("changed", this.known);
        this.timer = window.setInterval(() => document.hidden || this.refresh(), INTERVAL);
    }

    show() {
        this.refresh();
    }

    stop() {
        window.clearInterval(this.timer);
        permission.removeEventListener("changed", this.known);
        this.stopped = true;
    }

    async refresh() {
        if (this.asking)
            return;
        this.asking = true;
        const shown = await listGuests().then(guests => this.view(guests)).catch(fault);
        this.asking = false;
        if (!this.stopped)
            fill(this.body, shown);
    }

    view(guests) {
        const faults = guests.filter(guest => guest.error)
                .map(guest => alert("warning", `${guest.name}: ${guest.state}`, guest.error));
        if (guests.length === 0)
            return [alert("info", "No running guest with an agent port was found", CHANNEL), ...limits()];
        return [table("Guests of this host", HEADS, guests.map(row)), ...faults, ...limits()];
    }
}

function limits() {
    return isLimited() ? [alert("info", "Administrative access is turned off", LIMITS)] : [];
}

function row(guest) {
    return [
        el("a", { href: `#${cockpit.location.encode(["overview"], guestOptions(guest))}` }, guest.name),
        label(guest.state, KINDS[guest.state] || "danger"),
        guest.os || "",
        guest["host-name"] || "",
        guest.addresses.join(" "),
    ];
}

function guestOptions({ name, address }) {
    return { name, address };
}
