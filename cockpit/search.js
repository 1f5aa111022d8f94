// Looks up the guest that the page's address names. Anyone can make a link, and an address of libvirt can
// name a command to run, so qgactl connects only to what it has itself listed.

import { alert, el, fill } from "./dom.js";
import { fault, json } from "./qgactl.js";

const ADVICE = "Guests of other users are found with administrative access only.";
let listed = [];

// What `qgactl list` reports.
export async function listGuests() {
    listed = await json(["list"]);
    return listed;
}

// `found` is called with the guest's name and address, unless something else is shown by then.
export class Search {
    constructor(page, { name, address }, found) {
        Object.assign(this, { name, address, found });
        this.body = el("div", { class: "qga-body" }, "Looking for the guest…");
        fill(page,
            el("header", { class: "qga-header" }, el("a", { href: "#/" }, "Guests"), el("h1", {}, name)),
            this.body);
        this.run();
    }

    show() {}

    stop() {
        this.stopped = true;
    }

    async run() {
        const guest = await this.look().catch(error => this.fail(fault(error)));
        if (guest && !this.stopped)
            this.found(guest);
    }

    async look() {
        const same = ({ name, address }) => name === this.name && address === this.address;
        const guest = listed.find(same) || (await listGuests()).find(same);
        return guest || this.fail(alert("danger", `There is no guest ${this.name} on this host`, ADVICE,
            el("a", { href: "#/" }, "All guests of this host")));
    }

    fail(message) {
        if (!this.stopped)
            fill(this.body, message);
    }
}
