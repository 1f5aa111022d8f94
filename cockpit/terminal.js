// A login shell in the guest. xterm.js interprets what the guest writes. Its canvas renderer needs no
// inline styles, which Cockpit's Content-Security-Policy forbids.

import { button, el } from "./dom.js";

const { Terminal, FitAddon, CanvasAddon } = window;
const HINT = "Ctrl+Shift+F6 leaves the terminal; ~. at the beginning of a line ends the shell.";
const EXCLUSIVE = "Another part of this page ends it, too, because this guest serves one client at a time.";

export function terminalPanel(element, guest) {
    const place = el("div", {});
    const again = button("New shell", "secondary", () => start());
    element.append(el("div", { class: "qga-terminal" }, place),
        el("div", { class: "qga-actions" }, again, el("p", {}, HINT, guest.exclusive ? ` ${EXCLUSIVE}` : "")));
    const [terminal, fit] = makeTerminal(place, element);
    let channel = null;

    async function start() {
        again.disabled = true;
        terminal.reset();
        const { rows, cols } = terminal;
        const reason = await guest.shell({ rows, cols }, opened).then(describe, error => error.message);
        channel = null;
        again.disabled = false;
        terminal.write(`\r\n[${reason}]\r\n`);
    }

    function opened(made) {
        channel = made;
        channel.addEventListener("message", (_event, data) => terminal.write(data));
        terminal.focus();
    }

    terminal.onData(text => channel?.send(text));
    terminal.onResize(({ rows, cols }) => channel?.control({ window: { rows, cols } }));
    terminal.attachCustomKeyEventHandler(event => !leaves(event, again));
    start();
    return shown => {
        if (shown === null || (guest.exclusive && !shown))
            guest.endShell();
        if (shown === null)
            terminal.dispose();
        else if (shown)
            fit.fit();
    };
}

function makeTerminal(place, element) {
    const terminal = new Terminal({ screenReaderMode: true, scrollback: 5000, fontFamily: "monospace" });
    const fit = new FitAddon.FitAddon();
    terminal.loadAddon(fit);
    terminal.loadAddon(new CanvasAddon.CanvasAddon());
    terminal.open(place);
    fit.fit();
    window.addEventListener("resize", () => element.isConnected && !element.hidden && fit.fit());
    return [terminal, fit];
}

function describe({ problem }) {
    return problem === "not-found" ? "qgactl is not installed on this host" : "the shell has ended";
}

// Tab belongs to the shell, so another key has to move the focus on.
function leaves(event, next) {
    const wanted = event.type === "keydown" && event.ctrlKey && event.shiftKey && event.key === "F6";
    if (wanted)
        (next.disabled ? document.querySelector("[aria-current]") : next).focus();
    return wanted;
}
