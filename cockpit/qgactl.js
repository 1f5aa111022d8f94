// Runs qgactl on this host. Everything that the page knows or does goes through here.

import { alert } from "./dom.js";

const cockpit = window.cockpit;

// Root sees all guests and other users see their own, so administrative access is not required. Cockpit
// asks for it in its own menu, and reloads the page when it is turned on or off, because of this object.
export const permission = cockpit.permission({ admin: true });
const OPTIONS = { superuser: "try" };

const UNREACHABLE = 3;
const STATUS = {
    2: "qgactl rejected the request",
    [UNREACHABLE]: "Cannot connect to the guest",
    4: "The guest does not answer",
};
const TURN_ON = "Turn on administrative access and try again.";
const ADMINISTRATIVE = ["Permission denied", TURN_ON];
const PROBLEMS = {
    "not-found": ["qgactl is not installed on this host", "Install the package qgactl."],
    "access-denied": ADMINISTRATIVE,
    "authentication-failed": ADMINISTRATIVE,
    "cancelled": ["Cancelled", ""],
    "terminated": ["qgactl was stopped", ""],
};

// What a request fails with that the user has given up.
export const CANCELLED = { problem: "cancelled" };

// What a command prints, parsed, also if it has failed with a report as `doctor` does.
export function json(words, running = () => {}) {
    const process = cockpit.spawn(["qgactl", "--json", ...words], { err: "message", ...OPTIONS });
    running(process);
    return new Promise((resolve, reject) => {
        process.then(resolve).catch((error, text) => text ? resolve(text) : reject(error));
    }).then(text => text ? JSON.parse(text) : null);
}

// A channel of Cockpit, with a terminal of this host in which a command runs.
export function inTerminal(words, window) {
    const environ = ["TERM=xterm-256color"];
    return cockpit.channel({
        payload: "stream", spawn: ["qgactl", ...words], pty: true, binary: true, window, environ, ...OPTIONS,
    });
}

// What went wrong, and what to do about it.
export function fault(error) {
    const [title, advice] = PROBLEMS[error.problem] ||
        [STATUS[error.exit_status] || "qgactl failed", explained(error)];
    return alert("danger", title, advice.replace(/^qgactl: /gm, ""));
}

// The reason, with what a user can do about it who has left administrative access off. Only without a
// connection: otherwise a guest may have said that permission is denied.
function explained(error) {
    const reason = error.message || error.problem;
    const isDenied = error.exit_status === UNREACHABLE && /permission denied/i.test(reason);
    return isDenied && isLimited() ? `${reason}\n${TURN_ON}` : reason;
}

// Whether administrative access is off; it is not known at first.
export function isLimited() {
    return permission.allowed === false;
}
