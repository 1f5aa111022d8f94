// Live metrics: what `qgactl top` shows, with a curve of the processors' last minutes.

import { alert, el, facts, fill } from "./dom.js";
import { duration, percent, size } from "./format.js";
import { fault } from "./qgactl.js";

const PAUSE = 2000; // milliseconds from one reading, which takes a second, to the next
const READINGS = 60; // of the curve
const [WIDTH, HEIGHT] = [300, 60];
const SVG = "http://www.w3.org/2000/svg";

// Shows metrics while the panel is looked at. Returns what is to be told of that.
export function metricsView(body, guest) {
    const past = [];
    let shown = true;

    async function measure() {
        if (shown && !document.hidden)
            fill(body, await guest.measure().then(reading => view(reading, past)).catch(fault));
        if (shown !== null)
            window.setTimeout(measure, PAUSE);
    }

    measure();
    return now => { shown = now };
}

function view(reading, past) {
    if (reading.error)
        return alert("warning", "No metrics", reading.error);
    past.push(reading["cpu-percent"] ?? 0);
    past.splice(0, past.length - READINGS);
    return el("div", {}, curve(past), facts(figures(reading)));
}

function figures(reading) {
    const known = [
        ["Processors", reading["cpu-percent"], value => `${value.toFixed(1)} % busy`],
        ["Load over 1 minute", reading.load1m, value => value.toFixed(2)],
        ["Memory", reading.memory, level],
        ["Swap", reading.swap, level],
        ["Processes", reading.processes, String],
        ["Up for", reading["uptime-seconds"], duration],
    ];
    return [
        ...known.filter(([, value]) => value !== undefined && value !== null)
                .map(([name, value, text]) => [name, text(value)]),
        ...flows("Network", reading.network, "rx-bytes", "received", "tx-bytes", "sent"),
        ...flows("Disk", reading.disks, "read-bytes", "read", "write-bytes", "written"),
    ];
}

function level(of) {
    const [used, total] = [of["used-bytes"], of["total-bytes"]];
    return total ? `${size(used)} of ${size(total)} (${percent(used, total)})` : "none";
}

function flows(what, all, incoming, received, outgoing, sent) {
    return Object.entries(all || {}).map(([name, flow]) => [
        `${what} ${name}`,
        `${size(flow[incoming])}/s ${received}, ${size(flow[outgoing])}/s ${sent}`,
    ]);
}

// A picture, with a text for screen readers.
function curve(past) {
    const step = WIDTH / (READINGS - 1);
    const start = WIDTH - step * (past.length - 1);
    const points = past.map((share, index) =>
        `${(start + index * step).toFixed(1)},${(HEIGHT * (1 - Math.min(share, 100) / 100)).toFixed(1)}`);
    const text = `Processors over the last readings; now ${past.at(-1).toFixed(1)} % busy`;
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
                                 class: "qga-curve", role: "img", "aria-label": text });
    picture.append(svg("polyline", { points: points.join(" ") }));
    return picture;
}

function svg(tag, attributes) {
    const made = document.createElementNS(SVG, tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
}
