// Keeps the page what it would be if it were loaded again: asks for it, and puts in place of each
// part that has changed the new one. What is open, focused or selected stays so.
"use strict";
(() => {
  const EVERY_MS = 15000;
  const PAUSED = "riskhub-paused";
  const clock = document.getElementById("clock");
  if (!("live" in document.body.dataset) || !clock) return;
  const parts = () => [...document.querySelectorAll("[data-part]")];
  // As the server wrote them: a chart that has been drawn is no change.
  const written = new Map(parts().map((part) => [part.id, part.outerHTML]));
  let paused = localStorage.getItem(PAUSED) === "yes";

  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  const say = () => {
    button.textContent = paused ? "Resume" : "Pause";
    button.setAttribute("aria-label", paused ? "Resume updating the page" : "Pause updating the page");
  };
  button.addEventListener("click", () => {
    paused = !paused;
    localStorage.setItem(PAUSED, paused ? "yes" : "no");
    say();
    if (!paused) refresh();
  });
  say();
  clock.after(button);

  const isBusy = (part) => {
    const selection = getSelection();
    return selection && !selection.isCollapsed && part.contains(selection.anchorNode);
  };

  function swap(old, fresh) {
    const open = [...old.querySelectorAll("details[open]")].map((each) => each.id);
    const scrolled = [...old.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
    const focusable = "a, button, summary, [tabindex]";
    const focused = [...old.querySelectorAll(focusable)].indexOf(document.activeElement);
    old.replaceWith(fresh);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    [...fresh.querySelectorAll(".scroll")].forEach((each, number) => {
      if (scrolled[number]) [each.scrollLeft, each.scrollTop] = scrolled[number];
    });
    if (focused >= 0) fresh.querySelectorAll(focusable)[focused]?.focus({ preventScroll: true });
    fresh.dispatchEvent(new Event("swapped", { bubbles: true }));
  }

  async function refresh() {
    let answer;
    try {
      answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
    } catch {
      answer = null;
    }
    if (answer?.redirected) return location.reload(); // to the login
    if (!answer?.ok) {
      clock.classList.add("late");
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = [...page.querySelectorAll("[data-part]")];
    const scripts = (of) => [...of.querySelectorAll("script[src], link[rel=stylesheet]")].map((each) => each.getAttribute("src") || each.getAttribute("href")).join();
    const shape = (of) => of.map((each) => each.id).join();
    // Another release, or a part more or less: load it all.
    if (scripts(page) !== scripts(document) || shape(found) !== shape(parts())) return location.reload();
    for (const fresh of found) {
      const old = document.getElementById(fresh.id);
      const text = fresh.outerHTML;
      if (written.get(fresh.id) === text || isBusy(old)) continue;
      written.set(fresh.id, text);
      swap(old, document.adoptNode(fresh));
    }
    document.title = page.title;
    clock.classList.remove("late");
    clock.replaceChildren(...page.getElementById("clock").childNodes);
  }

  setInterval(() => {
    if (!paused && document.visibilityState === "visible") refresh();
  }, EVERY_MS);
  document.addEventListener("visibilitychange", () => {
    if (!paused && document.visibilityState === "visible") refresh();
  });
})();
