"use strict";
(function () {
  const tip = document.getElementById("tip");
  function show(mark, x, y) {
    tip.textContent = mark.getAttribute("data-tip");
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - box.width - 4)) + "px";
    tip.style.top = Math.max(4, y + 16 + box.height > innerHeight ? y - box.height - 8 : y + 16) + "px";
  }
  function over(event) {
    const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    if (mark) { show(mark, event.clientX, event.clientY); } else { tip.hidden = true; }
  }
  document.addEventListener("pointermove", over);
  document.addEventListener("pointerdown", over);
  document.addEventListener("keydown", function (event) {
    if (event.key === "Escape") { tip.hidden = true; }
  });
})();
