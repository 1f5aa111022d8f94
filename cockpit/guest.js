// A guest of `qgactl list`, and whose turn it is to talk to it.
//
// QEMU serves one client of a socket at a time, and the others wait. So requests run one after the other,
// and while a shell or a copy is in progress they fail at once: nobody expects a freeze to happen an hour
// after the click. Guests that are reached by libvirt or vsock serve many clients.

import { CANCELLED, inTerminal, json } from "./qgactl.js";

const SERVES_MANY = /^(libvirt|vsock|hvsock):/;

export class Guest {
    constructor({ name, address }) {
        this.name = name;
        this.address = address;
        this.exclusive = !SERVES_MANY.test(address);
        this.holder = null;
        this.channel = null;
        this.shellWanted = false;
        this.last = Promise.resolve();
    }

    // What `qgactl GUEST WORDS` reports.
    ask(...words) {
        return this.inTurn(() => json(this.command(words)));
    }

    // A reading of `qgactl top`.
    measure() {
        return this.inTurn(() => json(["top", "--count=1", "--", `guest=${this.address}`]));
    }

    // `signal` cancels the copy, also before its turn has come.
    copy(from, to, signal) {
        const words = this.command(["cp", "--recursive", "--", from, to]);
        return this.hold("A copy", async () => {
            signal.throwIfAborted();
            return json(words, process => signal.addEventListener("abort", () => process.close(CANCELLED.problem)));
        });
    }

    // `opened` is called with the channel. The promise is kept when the shell has ended.
    shell(size, opened) {
        this.shellWanted = true;
        // It may be given up before its turn comes.
        return this.hold("A shell", async () => this.shellWanted ? this.openShell(size, opened) : {});
    }

    openShell(size, opened) {
        this.channel = inTerminal(this.command(["shell"]), size);
        const ended = new Promise(resolve => {
            this.channel.addEventListener("close", (_event, options) => resolve(options));
        });
        opened(this.channel);
        return ended;
    }

    // What is asked next waits until the shell has made way.
    endShell() {
        this.shellWanted = false;
        this.channel?.close();
        if (this.holder?.name === "A shell")
            this.holder = null;
    }

    command(words) {
        return [`--connect=${this.address}`, ...words];
    }

    hold(name, work) {
        const done = this.inTurn(work);
        const mine = { name };
        if (this.exclusive && !this.holder) {
            this.holder = mine;
            done.catch(() => {}).then(() => { this.holder = this.holder === mine ? null : this.holder });
        }
        return done;
    }

    inTurn(work) {
        if (!this.exclusive)
            return work();
        if (this.holder)
            return Promise.reject(new Error(`${this.holder.name} uses the only connection to this guest. Try again when it has ended.`));
        const done = this.last.then(work);
        this.last = done.catch(() => {});
        return done;
    }
}
