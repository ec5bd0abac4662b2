"use strict";
// Draws each plot for the chosen axis and the reader's colour scheme, and again when either changes.
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const palettes = read("palettes");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plot")].map((place) => ({
    place,
    data: read("data-" + place.dataset.task),
  }));

  function transparent(colour, alpha) {
    const parts = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
    return `rgba(${parts.join(",")},${alpha})`;
  }

  function painted(figure) {
    const palette = palettes[dark.matches ? "dark" : "light"];
    const style = getComputedStyle(document.documentElement);
    const [ink, muted, line, card] = ["--ink", "--muted", "--line", "--card"].map((name) =>
      style.getPropertyValue(name).trim(),
    );
    const copy = structuredClone(figure);
    for (const trace of copy.data) {
      const colour = palette[trace.meta.style];
      if (trace.meta.role === "band") trace.fillcolor = transparent(colour, 0.16);
      if (trace.meta.role === "run") trace.line.color = transparent(colour, 0.4);
      if (trace.meta.role === "mean") {
        trace.line.color = colour;
        trace.marker.color = colour;
        trace.hoverlabel = { bgcolor: card, bordercolor: colour, font: { color: ink } };
      }
    }
    copy.layout.font.color = muted;
    for (const axis of [copy.layout.xaxis, copy.layout.yaxis]) {
      axis.gridcolor = line;
      axis.linecolor = line;
      axis.fixedrange = true;
    }
    return copy;
  }

  function draw() {
    const axis = document.querySelector("input[name=axis]:checked").value;
    for (const { place, data } of plots) {
      const figure = data.figures[axis];
      if (!figure) {
        Plotly.purge(place);
        place.textContent = "No run recorded this axis.";
        continue;
      }
      place.setAttribute("aria-label", data.descriptions[axis] + ". The numbers are in the tables below.");
      const { data: traces, layout } = painted(figure);
      if (!place.classList.contains("js-plotly-plot")) place.textContent = "";
      Plotly.react(place, traces, layout, { displayModeBar: false, responsive: true });
    }
  }

  if (!plots.length) return;
  document.getElementById("switch").addEventListener("change", draw);
  dark.addEventListener("change", draw);
  draw();
})();
