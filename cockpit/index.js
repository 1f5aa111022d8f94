// The page: the list of guests, or one of them. The guest's name and address are in the page's own
// address, so that Cockpit's back button works.

import { GuestPage } from "./page.js";
import { GuestList } from "./list.js";
import { Search } from "./search.js";

const cockpit = window.cockpit;
const page = document.getElementById("page");
let shown = null;

function navigate() {
    const { path, options } = cockpit.location;
    if (shown === null || shown.name !== options.name || shown.address !== options.address) {
        shown?.stop();
        shown = options.name ? new Search(page, options, present) : new GuestList(page);
    }
    shown.show(path[0]);
}

function present(guest) {
    shown = new GuestPage(page, guest);
    shown.show(cockpit.location.path[0]);
}

cockpit.transport.wait(() => {
    cockpit.addEventListener("locationchanged", navigate);
    navigate();
});
