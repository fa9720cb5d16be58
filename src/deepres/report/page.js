// Shows the numbers of the point nearest to the pointer or the finger; without it, the points' titles do.
"use strict";
{
  const tip = document.getElementById("tip");
  const reach = 28; // pixels
  const clear = () => {
    tip.hidden = true;
    for (const old of document.querySelectorAll(".near")) old.classList.remove("near");
  };
  for (const plot of document.querySelectorAll(".plot")) {
    const points = [...plot.querySelectorAll(".marks circle")].map((circle) => {
      const title = circle.querySelector("title");
      const point = { circle, text: title.textContent, x: circle.cx.baseVal.value, y: circle.cy.baseVal.value };
      title.remove(); // or the browser would show it as well
      return point;
    });
    const show = (event) => {
      clear();
      const box = plot.getBoundingClientRect();
      const scale = box.width / plot.viewBox.baseVal.width;
      let nearest = null;
      let least = reach;
      for (const point of points) {
        const distance = Math.hypot(box.left + point.x * scale - event.clientX, box.top + point.y * scale - event.clientY);
        if (distance < least) [nearest, least] = [point, distance];
      }
      if (nearest === null) return;
      nearest.circle.classList.add("near");
      tip.textContent = nearest.text;
      tip.hidden = false;
      const left = box.left + nearest.x * scale - tip.offsetWidth / 2;
      const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
      tip.style.left = `${Math.max(8, Math.min(left, room)) + scrollX}px`;
      tip.style.top = `${box.top + nearest.y * scale - tip.offsetHeight - 10 + scrollY}px`;
    };
    plot.addEventListener("pointermove", show);
    plot.addEventListener("pointerdown", show);
    plot.addEventListener("pointerleave", clear);
  }
}
