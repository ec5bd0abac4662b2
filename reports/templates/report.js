"use strict";
// Unpacks plotly.js, draws each visible plot for the chosen axis and the reader's colour scheme, and again when either
// changes. While runs go on, reads the page again from time to time.
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const palettes = read("palettes");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plot")].map((place) => ({
    place,
    data: read("data-" + place.dataset.part),
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
    if (!window.Plotly) return;
    const axis = document.querySelector("input[name=axis]:checked").value;
    for (const { place, data } of plots) {
      if (place.closest("details:not([open])")) continue; // nothing to measure; drawn when it opens
      const key = "any" in data.figures ? "any" : axis;
      if (!data.figures[key]) {
        Plotly.purge(place);
        place.textContent = "No run recorded this axis.";
        continue;
      }
      place.setAttribute("aria-label", data.descriptions[key] + ". The numbers are in the tables.");
      const { data: traces, layout } = painted(data.figures[key]);
      if (!place.classList.contains("js-plotly-plot")) place.textContent = "";
      Plotly.react(place, traces, layout, { displayModeBar: false, responsive: true });
    }
  }

  async function unpack() {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  // What the reader chose and opened survives reading the page again, where the browser lets a file keep anything.
  function remembered(name, value) {
    try {
      if (value === undefined) return JSON.parse(sessionStorage.getItem(name));
      sessionStorage.setItem(name, JSON.stringify(value));
    } catch {
      // nothing is kept
    }
    return null;
  }

  function live(seconds) {
    const all = [...document.querySelectorAll("details")];
    const chosen = remembered("chosen");
    if (chosen) {
      const input = document.querySelector(`input[name=axis][value="${chosen.axis}"]`);
      if (input) input.checked = true;
      all.forEach((place, i) => (place.open = chosen.open.includes(i)));
      document.getElementById("live").checked = chosen.live;
    }
    setInterval(() => {
      const open = all.flatMap((place, i) => (place.open ? [i] : []));
      const axis = document.querySelector("input[name=axis]:checked");
      const going = document.getElementById("live").checked;
      remembered("chosen", { axis: axis ? axis.value : "", open, live: going });
      if (going) location.reload();
    }, 1000 * seconds);
  }

  if (document.body.dataset.refresh) live(Number(document.body.dataset.refresh));
  if (!plots.length) return;
  document.getElementById("switch").addEventListener("change", draw);
  document.addEventListener("toggle", draw, true);
  dark.addEventListener("change", draw);
  unpack().then(draw, () => {
    for (const { place } of plots) place.textContent = "This browser cannot unpack the plots. The tables hold the same numbers.";
  });
})();
