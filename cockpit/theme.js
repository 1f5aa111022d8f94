// Follows the theme that is chosen in Cockpit's menu, as Cockpit's own pages do.

const system = window.matchMedia("(prefers-color-scheme: dark)");

function apply(chosen) {
    const style = chosen || window.localStorage.getItem("shell:style") || "auto";
    const dark = style === "dark" || (style === "auto" && system.matches);
    document.documentElement.classList.toggle("pf-v6-theme-dark", dark);
}

window.addEventListener("storage", event => event.key === "shell:style" && apply());
window.addEventListener("cockpit-style", event => apply(event.detail.style));
system.addEventListener("change", () => apply());
apply();
