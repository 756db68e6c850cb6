"use strict";
(() => {
  const minutes = 10, span = minutes * 60 * 1000;
  const at = id => document.getElementById(id);
  const services = new Map(); // name -> {history, card}
  let snapshot = null, shown = 0, wide = span; // of the charts: as long as the gateway has been up, ten minutes at most

  // Elements are made of texts alone: nothing that is told is ever markup.
  const make = (tag, attributes, ...inside) => {
    const e = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== undefined) e.setAttribute(name, value);
    }
    e.append(...inside);
    return e;
  };
  const draw = (tag, attributes) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
    return e;
  };
  const text = (e, s) => { if (e.textContent !== s) e.textContent = s; };

  const count = n => n >= 1e9 ? (n / 1e9).toFixed(1) + "G" : n >= 1e6 ? (n / 1e6).toFixed(1) + "M" : n >= 1e4 ? (n / 1e3).toFixed(1) + "k" : n >= 100 || Number.isInteger(n) ? Math.round(n).toString() : n.toFixed(1);
  const share = n => n === 0 ? "0 %" : n < 0.001 ? "< 0.1 %" : (100 * n).toFixed(n < 0.1 ? 1 : 0) + " %";
  const time = us => us >= 1e6 ? (us / 1e6).toFixed(us >= 1e7 ? 1 : 2) + " s" : us >= 1e3 ? (us / 1e3).toFixed(us >= 1e5 ? 0 : 1) + " ms" : Math.round(us) + " µs";
  const bytes = n => n >= 2 ** 30 ? (n / 2 ** 30).toFixed(1) + " GiB" : n >= 2 ** 20 ? (n / 2 ** 20).toFixed(1) + " MiB" : n >= 1024 ? (n / 1024).toFixed(0) + " KiB" : n + " B";
  const ago = ms => ms < 60e3 ? Math.max(0, Math.round(ms / 1e3)) + " s" : ms < 3600e3 ? Math.round(ms / 60e3) + " min" : ms < 48 * 3600e3 ? Math.round(ms / 3600e3) + " h" : Math.round(ms / 86400e3) + " d";

  // A slot is [start, over, requests, failed, hits, misses, p50, p95, p99].
  const remember = (history, slots, now) => {
    for (const s of slots) history.set(s[0], s);
    for (const start of history.keys()) if (start < now - span - 10e3) history.delete(start);
  };
  const sorted = history => [...history.values()].sort((a, b) => a[0] - b[0]);
  // The last minute: what has passed of the current slot, and those before.
  const minute = (history, now) => {
    const sum = { over: 0, requests: 0, failed: 0, hits: 0, misses: 0, p50: 0, p95: 0, p99: 0 };
    for (const s of history.values()) {
      if (s[0] < now - 60e3) continue;
      sum.over += s[1]; sum.requests += s[2]; sum.failed += s[3]; sum.hits += s[4]; sum.misses += s[5];
      if (s[2] > 0) { sum.p50 = Math.max(sum.p50, s[6]); sum.p95 = Math.max(sum.p95, s[7]); sum.p99 = Math.max(sum.p99, s[8]); }
    }
    sum.rate = sum.over > 0 ? sum.requests * 1e3 / sum.over : 0;
    sum.errors = sum.requests > 0 ? sum.failed / sum.requests : 0;
    return sum;
  };

  const newChart = (title, kind, lines) => {
    const value = make("span", { class: "key" });
    const svg = draw("svg", { viewBox: "0 0 600 100", preserveAspectRatio: "none", role: "img" });
    const area = draw("polygon", {});
    if (lines.length === 1) svg.append(area);
    const drawn = lines.map(name => { const l = draw("polyline", { class: name }); svg.append(l); return l; });
    const figure = make("figure", { class: kind }, make("figcaption", null, make("span", null, title), value), svg);
    return { figure, value, svg, area, drawn, title };
  };
  // values is for each line a list of [time, value].
  const drawChart = (chart, values, now, most, label) => {
    chart.drawn.forEach((line, i) => {
      const points = values[i].map(([t, v]) => [600 * (1 - (now - t) / wide), 98 - 94 * (most > 0 ? Math.min(1, v / most) : 0)]).filter(p => p[0] >= -10);
      const path = points.map(p => p[0].toFixed(1) + "," + p[1].toFixed(1)).join(" ");
      line.setAttribute("points", path);
      if (i === 0 && points.length > 0) {
        chart.area.setAttribute("points", points[0][0].toFixed(1) + ",100 " + path + " " + points[points.length - 1][0].toFixed(1) + ",100");
      }
    });
    chart.svg.setAttribute("aria-label", chart.title + " over ten minutes at most: " + label);
  };

  const newCard = name => {
    const c = {
      breaker: make("span", { class: "badge" }), replicas: make("span", { class: "badge" }), numbers: make("span", { class: "numbers" }),
      rate: newChart("Requests a second", "rate", ["rate"]),
      errors: newChart("Errors", "errors", ["errors"]),
      latency: newChart("Duration", "latency", ["p50", "p95", "p99"]),
      rows: make("tbody"), also: make("p", { class: "quiet" }),
    };
    c.parts = ["requests/s", "errors", "p95", "hits", "in flight"].map(label => {
      const b = make("b");
      const part = make("span", null, b, " " + label);
      c.numbers.append(part);
      return { part, b };
    });
    const head = ["Replica", "State", "In flight", "Header after", "In use", "Idle", "Waiting"];
    c.details = make("details", null,
      make("summary", null, make("strong", null, name), c.breaker, c.replicas, c.numbers),
      make("div", { class: "inside" },
        make("div", { class: "charts" }, c.rate.figure, c.errors.figure, c.latency.figure),
        make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Replicas of " + name },
          make("table", null, make("thead", null, make("tr", null, ...head.map((h, i) => make("th", { scope: "col", class: i > 1 ? "num" : undefined }, h)))), c.rows)),
        c.also));
    c.details.addEventListener("toggle", () => { if (snapshot) show(snapshot); });
    return c;
  };

  const badge = (e, kind, s) => { e.className = "badge " + kind; text(e, s); e.hidden = s === ""; };
  const breakers = { closed: ["good", "breaker closed"], open: ["bad", "breaker open"], half_open: ["warn", "breaker half open"], "": ["", ""] };
  const healths = { healthy: "good", ejected: "bad", unhealthy: "bad" };

  const showService = (s, kept, now) => {
    const c = kept.card, m = minute(kept.history, now);
    badge(c.breaker, ...(breakers[s.breaker] || ["", s.breaker]));
    const well = s.replicas.filter(r => r.health === "healthy").length;
    badge(c.replicas, s.replicas.length === 0 ? "" : well === s.replicas.length ? "good" : well > 0 ? "warn" : "bad",
      s.replicas.length === 0 ? "" : well + " of " + s.replicas.length + (s.replicas.length === 1 ? " replica well" : " replicas well"));
    const hits = m.hits + m.misses > 0 ? share(m.hits / (m.hits + m.misses)) : "–";
    [count(m.rate), share(m.errors), m.requests > 0 ? time(m.p95) : "–", hits, count(s.in_flight)].forEach((v, i) => text(c.parts[i].b, v));
    c.parts[1].b.className = m.errors > 0.05 ? "bad" : m.errors > 0 ? "warn" : "";
    c.parts[3].part.hidden = !s.cached;
    if (!c.details.open) return m;

    const slots = sorted(kept.history).filter(x => x[1] >= 1000);
    const line = f => {
      const points = slots.map(x => [x[0] + x[1], f(x)]);
      if (slots.length > 0) points.unshift([slots[0][0], f(slots[0])]); // one point alone is no line
      return points;
    };
    const rate = line(x => x[2] * 1e3 / x[1]), errors = line(x => x[2] > 0 ? x[3] / x[2] : 0);
    const lasting = [6, 7, 8].map(i => line(x => x[i]));
    const top = lists => Math.max(0, ...lists.map(l => Math.max(0, ...l.map(p => p[1]))));
    text(c.rate.value, "most " + count(top([rate])));
    drawChart(c.rate, [rate], now, top([rate]) * 1.05, count(m.rate) + " now");
    text(c.errors.value, "most " + share(top([errors])));
    drawChart(c.errors, [errors], now, Math.max(0.02, top([errors]) * 1.05), share(m.errors) + " now");
    c.latency.value.replaceChildren(...["p50", "p95", "p99"].map((p, i) => {
      const last = slots.length > 0 ? slots[slots.length - 1][6 + i] : 0;
      return make("i", { class: p }, p + " " + time(last));
    }));
    drawChart(c.latency, lasting, now, top(lasting) * 1.05, "p95 " + time(m.p95) + " now");

    c.rows.replaceChildren(...s.replicas.map(r => make("tr", null,
      make("td", null, r.address), make("td", { class: healths[r.health] || "" }, r.health),
      ...[count(r.in_flight), r.latency_us > 0 ? time(r.latency_us) : "–", count(r.pool[0]), count(r.pool[1]), count(r.pool[2])].map(v => make("td", { class: "num" }, v)))));
    text(c.also, s.queue[0] + s.queue[1] > 0 ? s.queue[0] + " in the places of WithMaxConcurrency, " + s.queue[1] + " waiting" : "");
    return m;
  };

  const tile = (key, label, value, kind) => {
    const place = at("tiles");
    let t = place.querySelector("[data-key=" + key + "]");
    if (!t) {
      t = make("div", { class: "tile", "data-key": key }, make("b"), make("span", null, label));
      place.append(t);
    }
    text(t.firstChild, value);
    t.firstChild.className = kind || "";
  };

  const show = s => {
    snapshot = s;
    wide = Math.min(span, Math.max(60e3, s.now - s.started));
    const now = s.now, wanted = at("filter").value.trim().toLowerCase();
    text(at("state"), (s.draining ? "draining · " : "") + "up for " + ago(s.now - s.started));
    const names = new Set(s.services.map(x => x.name));
    for (const [name, kept] of services) {
      if (!names.has(name)) { kept.card.details.remove(); services.delete(name); }
    }
    const all = { rate: 0, failed: 0, requests: 0, hits: 0, misses: 0, p95: 0, flight: 0 };
    for (const service of s.services) {
      const kept = services.get(service.name);
      const m = showService(service, kept, now);
      kept.card.details.hidden = wanted !== "" && !service.name.toLowerCase().includes(wanted);
      all.rate += m.rate; all.failed += m.failed; all.requests += m.requests; all.hits += m.hits; all.misses += m.misses;
      all.p95 = Math.max(all.p95, m.p95); all.flight += service.in_flight;
    }
    const errors = all.requests > 0 ? all.failed / all.requests : 0;
    tile("rate", "requests a second", count(all.rate));
    tile("errors", "errors, last minute", share(errors), errors > 0.05 ? "bad" : errors > 0 ? "warn" : "");
    tile("p95", "p95 of the slowest service", all.requests > 0 ? time(all.p95) : "–");
    tile("hits", "answered from a cache", all.hits + all.misses > 0 ? share(all.hits / (all.hits + all.misses)) : "–");
    tile("flight", "in flight", count(all.flight));
    at("none").hidden = s.services.length > 0;

    at("caches-part").hidden = s.caches.length === 0;
    at("caches").replaceChildren(...s.caches.map(c => make("div", { class: "tile" },
      make("b", null, bytes(c.bytes)), make("span", null, "of " + bytes(c.max_bytes) + " · " + count(c.entries) + (c.entries === 1 ? " entry · " : " entries · ") + count(c.evictions) + " evicted"),
      make("progress", { max: c.max_bytes, value: c.bytes, "aria-label": "share of the cache that is used" }))));
    at("slowest").replaceChildren(...s.slowest.map(r => make("tr", null,
      make("td", { class: "num" }, time(r.us)), make("td", { class: "path" }, r.method + " " + r.path),
      make("td", { class: r.status >= 500 ? "bad" : "" }, String(r.status)),
      make("td", { class: "trace", title: r.trace }, r.trace ? r.trace.slice(0, 16) + "…" : "–"), make("td", null, ago(now - r.at) + " ago"))));
    at("changes").replaceChildren(...s.changes.map(c => make("tr", null,
      make("td", null, ago(now - c.at) + " ago"), make("td", null, c.service || "all"), make("td", { class: "path" }, c.what + (c.detail ? " · " + c.detail : "")))));
    document.documentElement.dataset.shown = String(++shown);
  };

  const take = (event, whole) => {
    const s = JSON.parse(event.data);
    if (whole) for (const kept of services.values()) kept.history.clear();
    s.services.forEach((service, i) => {
      let kept = services.get(service.name);
      if (!kept) {
        kept = { history: new Map(), card: newCard(service.name) };
        kept.card.details.open = i < 6;
        services.set(service.name, kept);
        at("cards").append(kept.card.details);
      }
      remember(kept.history, service.history, s.now);
    });
    show(s);
  };

  const connect = () => {
    const link = at("link"), source = new EventSource("events");
    source.addEventListener("open", () => badge(link, "good", "live"));
    source.addEventListener("whole", e => take(e, true));
    source.addEventListener("news", e => take(e, false));
    source.addEventListener("error", () => {
      badge(link, "warn", "reconnecting…");
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000); // an answer that was no stream
    });
  };
  at("filter").addEventListener("input", () => { if (snapshot) show(snapshot); });
  connect();
})();
