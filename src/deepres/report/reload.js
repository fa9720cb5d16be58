// Loads the page anew after some seconds, as runs that are watched go on; what the reader has unfolded stays unfolded.
{
  const folds = [...document.querySelectorAll("details")];
  const key = `unfolded in ${location.pathname}`;
  try {
    for (const number of JSON.parse(sessionStorage.getItem(key) ?? "[]")) folds[number]?.setAttribute("open", "");
  } catch {} // a browser that keeps nothing: all are folded again
  setTimeout(() => {
    try {
      sessionStorage.setItem(key, JSON.stringify([...folds.keys()].filter((number) => folds[number].open)));
    } catch {}
    location.reload();
  }, 1000 * seconds);
}
