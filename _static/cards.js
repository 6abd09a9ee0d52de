// A card is folded above its code; where it stands beside it, it is open.
"use strict";
(() => {
    const wide = window.matchMedia("(min-width: 1640px)");
    const cards = document.querySelectorAll(".equation-card > details");
    const arrange = () => cards.forEach((card) => { card.open = wide.matches; });
    wide.addEventListener("change", arrange);
    arrange();
})();
