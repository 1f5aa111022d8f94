// Builds elements. Nothing that a guest says is ever read as markup: it becomes a text node, without
// characters that hide or reorder text, and not longer than LONGEST.

const LONGEST = 1000; // characters
const DECEPTIVE = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function printable(value) {
    const text = String(value ?? "");
    const kept = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
    return kept.replace(DECEPTIVE, "\ufffd");
}

// An attribute whose value is a function is a listener: { click: … }. false and null leave one out.
export function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (typeof value === "function")
            made.addEventListener(name, value);
        else if (value !== false && value !== null && value !== undefined)
            made.setAttribute(name, value === true ? "" : value);
    }
    fill(made, ...children);
    return made;
}

// Replaces what is in `parent`. Children that are not elements become text.
export function fill(parent, ...children) {
    const present = children.flat().filter(child => child !== null && child !== undefined);
    parent.replaceChildren(...present.map(asNode));
}

function asNode(child) {
    return child instanceof Node ? child : document.createTextNode(printable(child));
}

export function button(name, kind, click, attributes = {}) {
    return el("button", { type: "button", class: `pf-v6-c-button pf-m-${kind}`, click, ...attributes },
        el("span", { class: "pf-v6-c-button__text" }, name));
}

// kind: success, warning, danger, or nothing special.
export function label(text, kind = "") {
    return el("span", { class: `pf-v6-c-label pf-m-compact ${kind && `pf-m-${kind}`}` },
        el("span", { class: "pf-v6-c-label__content" },
            el("span", { class: "pf-v6-c-label__text" }, text)));
}

// A message that screen readers announce. Lines are shown as lines.
export function alert(kind, title, detail = "", ...actions) {
    const lines = String(detail).split("\n").filter(line => line.trim());
    return el("div", { class: `pf-v6-c-alert pf-m-inline pf-m-${kind}`, role: kind === "info" ? "status" : "alert" },
        el("p", { class: "pf-v6-c-alert__title" }, title),
        el("div", { class: "pf-v6-c-alert__description" }, lines.map(line => el("p", {}, line))),
        el("div", { class: "pf-v6-c-alert__action-group" }, actions));
}

// heads: the columns' names. rows: arrays with an element or text for each column.
// On a narrow window each cell has its own line, beginning with the column's name.
export function table(caption, heads, rows) {
    const cell = (content, index) => el("td",
        { class: "pf-v6-c-table__td", role: "cell", "data-label": heads[index] }, content);
    const row = cells => el("tr", { class: "pf-v6-c-table__tr", role: "row" }, cells.map(cell));
    return el("table", { class: "pf-v6-c-table pf-m-grid-md pf-m-compact", role: "table", "aria-label": caption },
        el("thead", { class: "pf-v6-c-table__thead" },
            el("tr", { class: "pf-v6-c-table__tr", role: "row" }, heads.map(head =>
                el("th", { class: "pf-v6-c-table__th pf-m-fit-content", role: "columnheader", scope: "col" }, head)))),
        el("tbody", { class: "pf-v6-c-table__tbody" }, rows.map(row)));
}

// facts: pairs of a term and what it is.
export function facts(pairs) {
    return el("dl", { class: "pf-v6-c-description-list pf-m-horizontal pf-m-compact" }, pairs.map(([term, what]) =>
        el("div", { class: "pf-v6-c-description-list__group" },
            el("dt", { class: "pf-v6-c-description-list__term" },
                el("span", { class: "pf-v6-c-description-list__text" }, term)),
            el("dd", { class: "pf-v6-c-description-list__description" },
                el("div", { class: "pf-v6-c-description-list__text" }, what)))));
}
