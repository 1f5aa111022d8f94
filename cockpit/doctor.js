// Why an agent does not answer, and what to try.

import { alert, button, el, fill, label, table } from "./dom.js";
import { fault } from "./qgactl.js";

const KINDS = { ok: "success", warning: "warning", failed: "danger" };
const HEADS = ["State", "Check", "Finding", "Advice"];

export function doctorPanel(element, guest) {
    const body = el("div", { "aria-live": "polite" });
    const examine = () => {
        fill(body, "Examining…");
        guest.ask("doctor")
                .then(report => [verdict(report), table("Checks", HEADS, report.checks.map(row))])
                .catch(fault)
                .then(shown => fill(body, shown));
    };
    element.append(body, button("Examine again", "secondary", examine));
    examine();
    return () => {};
}

function verdict({ healthy }) {
    return healthy ? alert("success", "The agent answers as it should") : alert("danger", "Something is wrong");
}

function row({ state, subject, detail, advice }) {
    return [label(state, KINDS[state]), subject, detail, advice || ""];
}
