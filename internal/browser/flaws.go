package browser

// Flaws lists what is hard to read in the page: elements that do not fit into the page or into
// their box, texts in columns of a few letters, texts outside of their drawing or on top of each
// other in it, and texts of low contrast. An element may be wider than an area that scrolls, and a
// text may be shortened if its title has all of it.
func (b *Browser) Flaws() []string {
	b.tb.Helper()
	return Eval[[]string](b, flaws)
}

// flaws is a script. 4.5 is the contrast that WCAG 2 demands of texts.
const flaws = `(() => {
	const out = [], page = document.documentElement;
	const name = (e) => e.tagName + "." + (e.getAttribute("class") || "") + " " +
		e.textContent.trim().slice(0, 40);
	const style = (e) => getComputedStyle(e);
	const scrolls = (e) => ["auto", "scroll"].includes(style(e).overflowX);
	const known = new Map();
	const within = (e) => {
		const up = e.parentElement;
		if (!up) return false;
		if (!known.has(up)) known.set(up, scrolls(up) || within(up));
		return known.get(up);
	};
	const shown = (e) => e.checkVisibility() && e.getClientRects().length > 0;
	if (page.scrollWidth > page.clientWidth) {
		out.push("page: " + page.scrollWidth + " of " + page.clientWidth);
	}
	for (const e of document.querySelectorAll("body *")) {
		if (e.ownerSVGElement || !shown(e)) continue;
		const r = e.getBoundingClientRect();
		if (!within(e) && (r.right > page.clientWidth + 0.5 || r.left < -0.5)) {
			out.push("outside of the page: " + name(e));
		}
		const letters = e.children.length ? 0 : e.textContent.trim().length;
		if (letters > 15 && r.width < 60 && style(e).display != "inline") {
			out.push("too narrow: " + name(e));
		}
		const shortened = style(e).textOverflow == "ellipsis" && e.title;
		if (e.scrollWidth > e.clientWidth + 1 && style(e).display != "inline" && !scrolls(e) &&
			!shortened && !(e instanceof SVGElement)) {
			out.push("too wide: " + name(e));
		}
	}
	for (const svg of document.querySelectorAll("svg")) {
		const p = svg.getBoundingClientRect(), before = [];
		for (const e of svg.querySelectorAll("text")) {
			if (!shown(e)) continue;
			const r = e.getBoundingClientRect();
			if (r.left < p.left - 1 || r.right > p.right + 1 || r.bottom > p.bottom + 1) {
				out.push("outside of the drawing: " + name(e));
			}
			if (before.some((o) => r.left < o.right && o.left < r.right && r.top < o.bottom - 2 &&
				o.top < r.bottom - 2)) {
				out.push("on top of another text: " + name(e));
			}
			before.push(r);
		}
	}
	const rgb = (s) => s.match(/[0-9.]+/g).map(Number);
	const light = (s) => {
		const c = rgb(s).slice(0, 3).map((v) => v / 255)
			.map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
	};
	const ground = (e) => {
		for (; e; e = e.parentElement) {
			const c = style(e).backgroundColor, [, , , a = 1] = rgb(c);
			if (a == 1) return c;
		}
		return "rgb(255, 255, 255)";
	};
	const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (words.nextNode()) {
		const e = words.currentNode.parentElement;
		if (!words.currentNode.data.trim() || !shown(e) || e.closest("svg, style, title")) continue;
		const a = light(style(e).color), b = light(ground(e));
		const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (contrast < 4.5) out.push("contrast " + contrast.toFixed(1) + ": " + name(e));
	}
	return out;
})()`
