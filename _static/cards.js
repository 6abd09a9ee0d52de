// Where cards reach over the contents of the page, these give way while one is in view.
"use strict";
(() => {
    const contents = document.querySelector(".bd-sidebar-secondary");
    const seen = new Set();
    const observer = new IntersectionObserver((entries) => {
        for (const { isIntersecting, target } of entries) {
            seen[isIntersecting ? "add" : "delete"](target);
        }
        contents?.classList.toggle("under-card", seen.size > 0);
    });
    document.querySelectorAll(".equation-card").forEach((card) => observer.observe(card));
})();
