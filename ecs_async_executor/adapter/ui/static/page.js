// Follows Airflow's colour mode, refreshes what can change, and opens links that its frame would not.
(() => {
  "use strict";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  if (window.parent !== window) root.dataset.framed = "";

  // Airflow's UI keeps the mode that was chosen in "theme"; it has the same origin.
  function follow() {
    let chosen = null;
    try {
      chosen = window.localStorage.getItem("theme");
    } catch {
      // storage is switched off
    }
    root.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : system.matches ? "dark" : "light";
  }
  follow();
  window.addEventListener("storage", follow);
  system.addEventListener("change", follow);

  // The frame's sandbox forbids new windows and a change of its parent's address: Airflow's own window may do both.
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[target]") : null;
    if (!link || window.parent === window || !/^https?:$/.test(link.protocol)) return;
    const twin = window.parent.document.createElement("a");
    twin.href = link.href;
    twin.rel = "noopener noreferrer";
    twin.target = link.target === "_top" ? "_self" : link.target;
    event.preventDefault();
    twin.click();
  });

  function positions(main) {
    return [...main.querySelectorAll("pre")].map((pre) => ({
      top: pre.scrollTop,
      atEnd: pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4,
    }));
  }

  function toEnd(main, before) {
    main.querySelectorAll("pre").forEach((pre, index) => {
      const was = before[index];
      pre.scrollTop = !was || was.atEnd ? pre.scrollHeight : was.top;
    });
  }

  async function refresh() {
    const main = document.querySelector("main");
    const notice = document.getElementById("refresh");
    if (!document.hidden && String(window.getSelection()) === "") {
      try {
        const answer = await fetch(window.location.href, { credentials: "same-origin" });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.querySelector("main");
        if (!answer.ok || !fresh) throw new Error(answer.statusText);
        const before = positions(main);
        main.replaceChildren(...fresh.childNodes);
        if (fresh.dataset.refresh) main.dataset.refresh = fresh.dataset.refresh;
        else delete main.dataset.refresh;
        toEnd(main, before);
        notice.hidden = true;
      } catch {
        notice.hidden = false;
      }
    }
    again();
  }

  // The next one is due only once the last one has ended.
  function again() {
    const seconds = Number(document.querySelector("main").dataset.refresh);
    if (seconds) window.setTimeout(refresh, seconds * 1000);
  }

  window.addEventListener("DOMContentLoaded", () => {
    toEnd(document.querySelector("main"), []);
    again();
  });
})();
