// Definitions stand under their words, and Escape puts them away.
"use strict";
(() => {
    const place = (word) => {
        const note = word.nextElementSibling;
        const paragraph = word.closest(".has-hint");
        const room = paragraph.clientWidth - note.offsetWidth;
        const left = word.getClientRects()[0].left - paragraph.getBoundingClientRect().left;
        note.style.left = `${Math.max(0, Math.min(left, room))}px`;
    };
    const words = document.querySelectorAll("a.hint");
    for (const word of words) {
        for (const kind of ["mouseenter", "focus"]) {
            word.addEventListener(kind, () => {
                word.classList.remove("dismissed");
                place(word);
            });
        }
    }
    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape") {
            words.forEach((word) => word.classList.add("dismissed"));
        }
    });
})();
