// The page: the list of guests, or one of them. The address of the guest is in the page's own address,
// so that Cockpit's back button works.

import { GuestPage } from "./page.js";
import { GuestList } from "./list.js";

const cockpit = window.cockpit;
const page = document.getElementById("page");
let shown = null;

function navigate() {
    const { path, options } = cockpit.location;
    if (shown === null || shown.address !== options.address) {
        shown?.stop();
        shown = options.address ? new GuestPage(page, options) : new GuestList(page);
    }
    shown.show(path[0]);
}

cockpit.transport.wait(() => {
    cockpit.addEventListener("locationchanged", navigate);
    navigate();
});
