"use strict";
// What the scripts share: the data, elements made of text (never of markup), sprites, light and dark.
const report = JSON.parse(document.getElementById("report-data").textContent);

function make(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key in element) element[key] = value; else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const addresses = new Map();
// The address of a sprite: beside the page, or a blob made when it is first looked at.
function spriteAddress(number) {
  if (!addresses.has(number)) {
    const text = document.getElementById("sprite-" + number).textContent;
    let address = text;
    if (!report.beside) {
      const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
      address = URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
    }
    addresses.set(number, address);
  }
  return addresses.get(number);
}

// Shows tile `index` of `images` in an element, `side` pixels wide.
function showTile(element, images, index, side) {
  const scale = side / images.width, at = index % images.per;
  const column = at % images.columns, row = Math.floor(at / images.columns);
  const inSprite = Math.min(images.per, images.num - (index - at));
  const rows = Math.ceil(inSprite / images.columns);
  Object.assign(element.style, {
    width: side + "px", height: images.height * scale + "px",
    backgroundImage: `url("${spriteAddress(images.first + Math.floor(index / images.per))}")`,
    backgroundSize: `${images.columns * images.width * scale}px ${rows * images.height * scale}px`,
    backgroundPosition: `${-column * side}px ${-row * images.height * scale}px`,
  });
}

function picture(images, index, side, label) {
  const element = make("span", { className: "picture", role: "img", "aria-label": label });
  showTile(element, images, index, side);
  return element;
}

// Calls `then` once when an element comes near the window.
function whenNear(element, then) {
  const watcher = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) { watcher.disconnect(); then(); }
  }, { rootMargin: "600px" });
  watcher.observe(element);
}

const themeButton = document.getElementById("theme");
const themeListeners = [];
function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  themeButton.setAttribute("aria-pressed", String(dark));
  themeListeners.forEach((listener) => listener());
}
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
setTheme(prefersDark.matches);
prefersDark.addEventListener("change", (event) => setTheme(event.matches));
themeButton.addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
