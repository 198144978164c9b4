// Draws the curves of a report as SVG. All charts show the same range of steps and one cursor:
// drag across one to zoom, double-click or Escape to see everything again, arrow keys to read.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const margin = { left: 54, right: 8, top: 8, bottom: 22 };
  const shared = { axis: "step", range: null, cursor: null };

  class Chart {
    constructor(figure) {
      const spec = data.charts[Number(figure.dataset.chart)];
      this.share = spec.share;
      this.plot = figure.querySelector(".plot");
      this.at = figure.querySelector(".at");
      this.outputs = [...figure.querySelectorAll(".value")];
      this.lines = spec.lines.map((line) => ({ ...line, steps: line.x, shown: true }));
      this.log = spec.log;
      figure.querySelectorAll(".legend button").forEach((button, place) => {
        button.addEventListener("click", () => this.toggle(button, this.lines[place]));
      });
      this.listen();
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }

    toggle(button, line) {
      line.shown = !line.shown;
      button.setAttribute("aria-pressed", String(line.shown));
      this.draw();
    }

    // Steps, or epochs where the run tells how many epochs a step is.
    useAxis() {
      for (const line of this.lines) {
        const epochs = shared.axis === "epoch" ? data.runs[line.run].epochs : 1;
        line.x = epochs ? line.steps.map((step) => step * epochs) : [];
      }
    }

    scaled(y) {
      if (y === null || !this.log) return y;
      return y > 0 ? Math.log10(y) : null;
    }

    draw() {
      const width = this.plot.clientWidth;
      const height = this.plot.clientHeight;
      const inner = {
        w: Math.max(width - margin.left - margin.right, 1),
        h: Math.max(height - margin.top - margin.bottom, 1),
      };
      this.range = shared.range ?? everything();
      const [left, right] = this.range;
      const shown = this.lines.filter((line) => line.shown);
      const scaled = shown.map(({ x, y }) => ({ x, y: y.map((value) => this.scaled(value)) }));
      const [low, high] = heights(scaled, this.range, !this.log);
      this.x = (x) => ((x - left) / (right - left)) * inner.w;
      this.y = (y) => (1 - (y - low) / (high - low)) * inner.h;
      this.inner = inner;
      this.plot.replaceChildren();
      const root = svg(this.plot, "svg", { width, height });
      const frame = svg(root, "g", { transform: `translate(${margin.left},${margin.top})` });
      this.drawGrid(frame, left, right, low, high);
      // A nested svg clips its content to the plot.
      this.area = svg(frame, "svg", { width: inner.w, height: inner.h });
      this.area.style.overflow = "hidden";
      for (const line of shown) {
        svg(this.area, "path", { d: this.path(line), class: line.style });
      }
      this.overlay = svg(frame, "g", {});
      this.drawCursor();
    }

    drawGrid(frame, left, right, low, high) {
      const { w, h } = this.inner;
      const rows = this.log ? logTicks(low, high) : ticks(low, high, 5);
      for (const value of rows) {
        const y = this.y(value);
        const shown = this.log ? 10 ** value : value;
        const step = this.log ? logStep(value) : tickStep(low, high, 5);
        svg(frame, "path", { d: `M0 ${y}H${w}`, class: "grid" });
        svg(frame, "text", { x: -8, y: y + 4, "text-anchor": "end" }, tickText(shown, step, this.share));
      }
      svg(frame, "path", { d: `M0 ${h}H${w}`, class: "axis" });
      const count = Math.max(4, Math.floor(w / 80));
      for (const value of ticks(left, right, count)) {
        const anchor = this.x(value) > w - 12 ? "end" : "middle";
        const text = tickText(value, tickStep(left, right, count), false);
        svg(frame, "text", { x: this.x(value), y: h + 16, "text-anchor": anchor }, text);
      }
    }

    // A gap where there is no number to draw; a point between two gaps is a dot.
    path(line) {
      let pen = false;
      let path = "";
      line.x.forEach((x, i) => {
        const y = this.scaled(line.y[i]);
        if (y === null) {
          pen = false;
          return;
        }
        const place = `${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`;
        path += pen ? `L${place}` : `M${place}h0`;
        pen = true;
      });
      return path;
    }

    drawCursor() {
      if (!this.overlay) return;
      this.overlay.replaceChildren();
      const at = shared.cursor;
      const inSight = at !== null && at >= this.range[0] && at <= this.range[1];
      this.at.textContent = inSight ? `${shared.axis} ${words(at, false)}` : "";
      if (inSight) {
        svg(this.overlay, "path", { d: `M${this.x(at)} 0V${this.inner.h}`, class: "cursor" });
      }
      this.lines.forEach((line, place) => {
        const i = inSight && line.x.length ? nearest(line.x, at) : line.y.length - 1;
        this.outputs[place].textContent = words(line.y[i], this.share);
        if (!inSight || !line.shown || line.y[i] === null || !line.x.length) return;
        const [cx, cy] = [this.x(line.x[i]), this.y(this.scaled(line.y[i]))];
        if (cx >= 0 && cx <= this.inner.w) {
          svg(this.overlay, "circle", { cx, cy, r: 4, class: line.style });
        }
      });
    }

    listen() {
      const { plot } = this;
      plot.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        this.start = this.place(event);
        plot.setPointerCapture(event.pointerId);
      });
      plot.addEventListener("pointermove", (event) => {
        const here = this.place(event);
        setCursor(this.reported(this.value(here)));
        if (this.start !== undefined) this.drawChosen(this.start, here);
      });
      plot.addEventListener("pointerup", (event) => {
        const from = this.start;
        this.stop();
        const to = this.place(event);
        if (from === undefined) return;
        if (Math.abs(to - from) > 8) setRange([this.value(from), this.value(to)]);
        else setCursor(this.reported(this.value(to)));
      });
      plot.addEventListener("pointercancel", () => this.stop());
      plot.addEventListener("pointerleave", (event) => {
        if (event.pointerType === "mouse") setCursor(null);
      });
      plot.addEventListener("dblclick", () => setRange(null));
      plot.addEventListener("keydown", (event) => this.key(event));
    }

    stop() {
      this.start = undefined;
      this.drawCursor();
    }

    key(event) {
      if (event.key === "Escape") {
        setRange(null);
        setCursor(null);
      } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
        event.preventDefault();
        const { x } = this.lines[0];
        const there = shared.cursor === null ? x.length - 1 : nearest(x, shared.cursor);
        const next = there + (event.key === "ArrowLeft" ? -1 : 1);
        if (x.length) setCursor(x[Math.min(Math.max(next, 0), x.length - 1)]);
      }
    }

    // Pixels from the left edge of the plot, within it.
    place(event) {
      const left = this.plot.getBoundingClientRect().left + margin.left;
      return Math.min(Math.max(event.clientX - left, 0), this.inner.w);
    }

    value(pixels) {
      return this.range[0] + (pixels / this.inner.w) * (this.range[1] - this.range[0]);
    }

    // The x nearest to `x` at which a curve of this chart has a point.
    reported(x) {
      const found = this.lines.filter((line) => line.shown && line.x.length);
      const points = found.map((line) => line.x[nearest(line.x, x)]);
      return points.reduce((a, b) => (Math.abs(b - x) < Math.abs(a - x) ? b : a), points[0] ?? null);
    }

    drawChosen(from, to) {
      this.drawCursor();
      const box = { x: Math.min(from, to), y: 0, width: Math.abs(to - from), height: this.inner.h };
      svg(this.overlay, "rect", { ...box, class: "chosen" });
    }
  }

  // The range of all curves.
  function everything() {
    const ends = charts.flatMap((chart) => chart.lines.flatMap(({ x }) => [x[0], x[x.length - 1]]));
    const known = ends.filter((end) => end !== undefined);
    const low = known.reduce((a, b) => Math.min(a, b), Infinity);
    const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!known.length) return [0, 1];
    return high > low ? [low, high] : [low - 1, high + 1];
  }

  function setRange(range) {
    shared.range = range && range.sort((a, b) => a - b);
    if (reset) reset.disabled = range === null;
    charts.forEach((chart) => chart.draw());
  }

  let waiting = false;
  function setCursor(at) {
    shared.cursor = at;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      charts.forEach((chart) => chart.start === undefined && chart.drawCursor());
    });
  }

  function setAxis(axis) {
    shared.axis = axis;
    shared.cursor = null;
    charts.forEach((chart) => chart.useAxis());
    for (const [name, button] of axes) button.setAttribute("aria-pressed", String(name === axis));
    setRange(null);
  }

  function button(parent, text, action) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", action);
    parent.append(made);
    return made;
  }

  const axes = [];
  let reset = null;
  const charts = [];
  for (const figure of document.querySelectorAll(".chart")) charts.push(new Chart(figure));

  const tools = document.getElementById("tools");
  if (tools) {
    if (data.runs.some((run) => run.epochs)) {
      const choice = document.createElement("span");
      tools.append(choice);
      axes.push(["step", button(choice, "Steps", () => setAxis("step"))]);
      axes.push(["epoch", button(choice, "Epochs", () => setAxis("epoch"))]);
    }
    reset = button(tools, "Reset zoom", () => setRange(null));
    const hint = document.createElement("span");
    hint.className = "note hint";
    hint.textContent = "Drag across a chart to zoom all of them, double-click to go back.";
    tools.append(hint);
    tools.hidden = false;
  }
  setAxis("step");
})();
