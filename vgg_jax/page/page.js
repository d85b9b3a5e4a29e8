// Draws the page's figures, and keeps colours, switches, zooms and cameras together.
(() => {
  "use strict";
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const places = [...document.querySelectorAll("[data-plot]")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const state = { off: new Set(), axis: "epoch", log: false, printing: false };
  const figureOf = (place) => page.figures[place.dataset.plot];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const isOff = (meta) => state.off.has("key" + meta.key) || state.off.has("split" + meta.split);

  function traces(figure, place) {
    return figure.data.map((trace) => {
      if (place.chosen !== undefined) trace = { ...trace, z: figure.choices[place.chosen] };
      if (!figure.curves) return trace;
      const at = page.runs[trace.meta.run];
      const point = at.step.map((step, i) => `epoch ${at.epoch[i]}, step ${step}`);
      return { ...trace, x: at[state.axis], customdata: point, visible: !isOff(trace.meta) };
    });
  }

  function drops(line) {
    return page.drops.filter((drop) => !state.off.has("key" + drop.key)).map((drop) => {
      const x = page.runs[drop.run][state.axis][drop.at];
      return { type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color: line, width: 1, dash: "dot" } };
    });
  }

  function layout(figure) {
    // A 3-D scene is not drawn again for the printer, so its colours suit light and dark.
    const names = figure.layout.scene ? ["--none", "--both", "--both", "--both"] : ["--paper", "--ink", "--line", "--faint"];
    const [paper, ink, grid, faint] = names.map(colour);
    const found = {
      ...structuredClone(figure.layout), paper_bgcolor: paper, plot_bgcolor: paper, autosize: true,
      uirevision: figure.curves ? state.axis : "same", font: { color: ink, family: "system-ui, sans-serif", size: 13 },
      hoverlabel: { bgcolor: paper, bordercolor: faint, font: { color: ink } }, dragmode: figure.layout.scene ? "orbit" : touch ? false : "zoom",
    };
    if (touch && !found.scene) found.margin.t = 34; // for the buttons, so the legend goes to the bottom
    if (touch && found.legend) Object.assign(found.legend, { yref: "container", y: 0, yanchor: "bottom" });
    const axes = Object.values(found.scene || found).filter((axis) => axis && axis.title && axis.title.text !== undefined);
    for (const axis of axes) Object.assign(axis, { gridcolor: grid, linecolor: faint, zerolinecolor: grid });
    if (figure.curves) {
      found.xaxis.title.text = state.axis;
      found.shapes = drops(faint);
      if (figure.layout.yaxis.title.text === "loss") found.yaxis.type = state.log ? "log" : "linear";
    }
    if (state.printing && !found.scene) found.width = figure.narrow ? 330 : 690;
    return found;
  }

  for (const place of places) figureOf(place).narrow = Boolean(place.closest(".grid"));
  const shown = (place) => !place.closest("details:not([open])");
  const touch = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page, and buttons zoom
  const config = { responsive: true, displaylogo: false, typesetMath: false, displayModeBar: touch ? true : "hover" };
  const buttons = touch ? { modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d"]] } : {};

  function draw(place) {
    if (!shown(place)) return;
    const figure = figureOf(place), begun = place.begun;
    const tools = figure.layout.scene ? { displayModeBar: false } : buttons;
    place.begun = true;
    try {
      Plotly.react(place, traces(figure, place), layout(figure), { ...config, ...tools });
      if (!begun) link(place, figure);
    } catch (error) {
      place.textContent = "This figure could not be drawn: " + error.message; // the others can
    }
  }

  const drawAll = () => places.forEach(draw);

  // The other drawn figures of a kind get what changed in one of them.
  let following = false;
  function pass(from, alike, change) {
    if (following) return;
    following = true;
    const others = places.filter((place) => place !== from && place.begun && alike(figureOf(place)));
    Promise.all(others.map((place) => Plotly.relayout(place, change))).finally(() => (following = false));
  }

  function link(place, figure) {
    if (figure.linked === "camera") {
      const turned = () => pass(place, (other) => other.linked === "camera", { "scene.camera": place._fullLayout.scene._scene.getCamera() });
      place.on("plotly_relayout", turned);
      place.on("plotly_relayouting", turned);
    }
    if (figure.curves) {
      place.on("plotly_relayout", (change) => {
        const wanted = Object.fromEntries(Object.entries(change).filter(([name]) => name.startsWith("xaxis.")));
        if (Object.keys(wanted).length) pass(place, (other) => other.curves, wanted);
      });
    }
  }

  function redrawCurves() {
    places.filter((place) => figureOf(place).curves).forEach(draw);
  }

  document.querySelectorAll("[data-key], [data-split]").forEach((box) => {
    const name = box.dataset.key === undefined ? "split" + box.dataset.split : "key" + box.dataset.key;
    const change = () => (state.off[box.checked ? "delete" : "add"](name), redrawCurves());
    if (!box.checked) state.off.add(name); // kept by the browser over a reload
    box.addEventListener("change", change);
  });
  const listen = (id, change) => {
    const control = document.getElementById(id);
    if (control) control.addEventListener("change", () => (change(control), redrawCurves()));
    if (control) change(control);
  };
  listen("x-axis", (select) => (state.axis = select.value));
  listen("log-loss", (box) => (state.log = box.checked));
  document.querySelectorAll("select.choice").forEach((select) => {
    const mine = [...select.closest("section").querySelectorAll("[data-plot]")].filter((place) => figureOf(place).choices);
    const choose = () => mine.forEach((place) => ((place.chosen = Number(select.value)), place.begun && draw(place)));
    select.addEventListener("change", choose);
    choose();
  });
  document.querySelectorAll("details").forEach((fold) => {
    fold.addEventListener("toggle", () => fold.querySelectorAll("[data-plot]").forEach((place) => place.begun || draw(place)));
  });

  dark.addEventListener("change", drawAll);
  function print(on) {
    state.printing = on;
    document.documentElement.classList.toggle("printing", on); // light, whatever the screen is
    document.querySelectorAll("details").forEach((fold) => {
      if (on && !fold.open) fold.opened = fold.open = true;
      else if (!on && fold.opened) fold.opened = fold.open = false;
    });
    drawAll();
  }
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  drawAll();
  document.documentElement.dataset.drawn = "yes";
})();
