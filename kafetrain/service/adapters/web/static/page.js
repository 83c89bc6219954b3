// Counts down to due times, and fetches the page again every few seconds while nobody types into it.
"use strict";

function inWords(seconds) {
  if (seconds <= 0) return "now";
  if (seconds < 60) return `in ${Math.ceil(seconds)} s`;
  if (seconds < 3600) return `in ${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `in ${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `in ${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function showTimes() {
  for (const time of document.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    if ("due" in time.dataset) {
      time.textContent = inWords((at - Date.now()) / 1000);
      time.title = at.toLocaleString();
    } else if (!time.title) {
      time.title = time.dateTime;
      time.textContent = at.toLocaleString();
    }
  }
}

async function refresh() {
  const main = document.getElementById("content");
  const isBusy = document.hidden || main.contains(document.activeElement) || String(getSelection());
  if (!main.dataset.refresh || isBusy) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok && answer.status !== 503 && answer.status !== 404) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const isStillFree = !main.contains(document.activeElement);
    if (isStillFree) main.replaceWith(page.getElementById("content"));
    showTimes();
  } catch {
    // The service restarts; the next round finds it.
  }
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
showTimes();
setInterval(showTimes, 500);
setInterval(refresh, 1000 * (Number(document.getElementById("content").dataset.refresh) || 5));
