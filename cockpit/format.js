// Numbers as people read them, and as qgactl writes them. cockpit.format_bytes() is asked for units of
// 1024 in one way by older versions of Cockpit, and in another by newer ones.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export function size(bytes) {
    if (!Number.isFinite(bytes))
        return "unknown";
    const power = Math.min(UNITS.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
    return `${(bytes / 1024 ** power).toFixed(power ? 1 : 0)} ${UNITS[power]}`;
}

export function percent(part, whole) {
    return whole > 0 ? `${(100 * part / whole).toFixed(1)} %` : "unknown";
}

export function duration(seconds) {
    const minutes = Math.floor(seconds / 60);
    const hours = Math.floor(minutes / 60);
    if (hours >= 48)
        return `${Math.floor(hours / 24)} days`;
    return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
}

export function counted(number, noun) {
    return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
