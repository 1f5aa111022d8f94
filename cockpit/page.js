// The page of one guest: its name, and a panel for each thing to do. A panel is made when it is first
// looked at, and stays until another guest is chosen, so that a copy continues meanwhile.

import { copyPanel } from "./copy.js";
import { doctorPanel } from "./doctor.js";
import { el, fill } from "./dom.js";
import { filesystemsPanel } from "./filesystems.js";
import { FreezeControl } from "./freeze.js";
import { Guest } from "./guest.js";
import { overviewPanel } from "./overview.js";
import { terminalPanel } from "./terminal.js";

const cockpit = window.cockpit;

// Each is called with an element to fill and the guest. What it returns is called with true when the
// panel is shown again, false when another one is shown, and null at the end.
const PANELS = {
    overview: ["Overview", overviewPanel],
    filesystems: ["Filesystems", filesystemsPanel],
    terminal: ["Terminal", terminalPanel],
    copy: ["Copy files", copyPanel],
    doctor: ["Doctor", doctorPanel],
};

export class GuestPage {
    constructor(page, { name, address }) {
        this.name = name;
        this.address = address;
        this.guest = new Guest({ name, address });
        this.panels = {};
        this.tabs = el("nav", { class: "pf-v6-c-tabs", "aria-label": "Parts of this page" });
        this.body = el("div", { class: "qga-body" });
        this.freeze = new FreezeControl(this.guest);
        fill(page,
            el("header", { class: "qga-header" },
                el("a", { href: "#/" }, "Guests"),
                el("h1", {}, name),
                this.freeze.button),
            this.freeze.warning, this.tabs, this.body);
    }

    show(name) {
        const chosen = name in PANELS ? name : "overview";
        fill(this.tabs, el("ul", { class: "pf-v6-c-tabs__list" },
            Object.keys(PANELS).map(each => this.tab(each, each === chosen))));
        for (const [each, { element, tell }] of Object.entries(this.panels)) {
            element.hidden = each !== chosen;
            tell(each === chosen);
        }
        if (!this.panels[chosen])
            this.panels[chosen] = this.open(chosen);
    }

    tab(name, current) {
        return el("li", { class: `pf-v6-c-tabs__item ${current ? "pf-m-current" : ""}` },
            el("a", {
                class: "pf-v6-c-tabs__link",
                href: `#${cockpit.location.encode([name], { name: this.name, address: this.address })}`,
                "aria-current": current && "page",
            }, el("span", { class: "pf-v6-c-tabs__item-text" }, PANELS[name][0])));
    }

    open(name) {
        const [title, panel] = PANELS[name];
        const element = el("section", { "aria-label": title, id: `panel-${name}` });
        this.body.append(element);
        return { element, tell: panel(element, this.guest) };
    }

    stop() {
        this.freeze.stop();
        Object.values(this.panels).forEach(({ tell }) => tell(null));
    }
}
