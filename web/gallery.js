// A gallery of styles: a button on the nodes that have a list of styles, their menu, or Shift+S, lets people choose by thumbnail.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { translated } from "./texts.js";

const STYLE_INPUTS = { AdaINLoadStyle: "name", AdaINStyleTransfer: "style" };
const COMMAND = "AdaIN.ChooseStyle";
const BUTTON = "choose_style"; // by this name, in every language, app mode finds it

const LOOK = `
.adain-gallery { --faint: color-mix(in srgb, var(--fg-color) 9%, transparent); --accent: var(--p-primary-color, #3b82f6);
  box-sizing: border-box; width: min(46rem, 94vw); max-height: 80vh; margin: 10vh auto auto; padding: 0; overflow: hidden;
  border: 1px solid var(--border-color); border-radius: 12px; background: var(--comfy-menu-bg); color: var(--fg-color);
  font: 14px/1.35 Inter, Arial, sans-serif; box-shadow: 0 16px 48px rgb(0 0 0 / 45%); }
.adain-gallery[open] { display: flex; flex-direction: column; }
.adain-gallery::backdrop { background: rgb(0 0 0 / 45%); }
.adain-gallery header { display: flex; align-items: center; gap: 12px; padding: 14px 16px; }
.adain-gallery h2 { margin: 0; font-size: 16px; font-weight: 600; white-space: nowrap; }
.adain-gallery input { flex: 1; min-width: 0; padding: 8px 12px; border: 1px solid var(--border-color); border-radius: 8px;
  background: var(--faint); color: inherit; font: inherit; }
.adain-gallery input::placeholder { color: var(--descrip-text); opacity: 1; }
.adain-gallery header button { width: 34px; height: 34px; border: 0; border-radius: 8px; background: none;
  color: var(--descrip-text); font-size: 22px; line-height: 1; cursor: pointer; }
.adain-gallery header button:hover { background: var(--faint); color: var(--fg-color); }
.adain-gallery :is(input, header button, [role=listbox]):focus-visible { outline: 2px solid var(--accent);
  outline-offset: -1px; }
.adain-gallery [role=listbox] { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 6px;
  padding: 4px 12px 8px; overflow-y: auto; border-radius: 8px; }
.adain-gallery [role=option] { padding: 6px; border: 2px solid transparent; border-radius: 10px; text-align: center;
  overflow-wrap: anywhere; font-size: 12px; cursor: pointer; scroll-margin: 8px; }
.adain-gallery [role=option].active { border-color: var(--accent); background: var(--faint); }
.adain-gallery [role=option][aria-selected=true] { font-weight: 700; }
.adain-gallery [role=option][aria-selected=true]::after { content: " ✓"; }
.adain-gallery .picture { position: relative; display: grid; place-items: center; aspect-ratio: 1; margin-bottom: 6px;
  overflow: hidden; border-radius: 6px; background: var(--faint); color: var(--descrip-text);
  font-size: 32px; font-weight: 400; }
.adain-gallery img { position: absolute; width: 100%; height: 100%; object-fit: cover; }
.adain-gallery img.painting { right: 4px; bottom: 4px; width: 38%; height: 38%; border-radius: 4px;
  box-shadow: 0 0 0 1px rgb(255 255 255 / 60%), 0 1px 4px rgb(0 0 0 / 60%); }
.adain-gallery .unfit :is(img, span) { opacity: .35; }
.adain-gallery .unfit .picture::after { content: "⊘"; position: absolute; color: var(--fg-color); }
.adain-gallery footer { flex: none; min-height: 1.35em; padding: 10px 16px 12px; border-top: 1px solid var(--faint);
  color: var(--descrip-text); font-size: 12px; }
`;

const translate = (english) => translated("AdaIN")?.[english] ?? english;

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The list of styles on a node, or the one inside that the node of a subgraph shows.
function styleWidget(node) {
  const shown = node.inputs?.find(({ name }) => {
    const inside = node.resolvePromotedTarget?.(name);
    return inside && styleWidget(node.subgraph.getNodeById(inside.nodeId))?.name === inside.widgetName;
  });
  return shown?._widget ?? node.widgets?.find((widget) => widget.name === STYLE_INPUTS[node.comfyClass]);
}

// The styles there are now; of a server that does not tell, or does not answer, the names that the node has.
async function readStyles(widget) {
  const answer = await api.fetchApi("/adain/styles").catch(() => null);
  return answer?.ok ? answer.json() : widget.options.values.map((name) => ({ name, source: "" }));
}

// A text as the filter compares it: without accents, and with umlauts spelt either way.
function plain(text) {
  return text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "").replace(/([aou])e/g, "$1");
}

function choose(node, widget, name) {
  const { values } = widget.options;
  if (!values.includes(name)) values.push(name); // saved after the page was loaded
  app.canvas.emitBeforeChange();
  if (widget.setValue) widget.setValue(name, { node, canvas: app.canvas });
  else widget.value = name; // on the node of a subgraph
  app.canvas.emitAfterChange();
  node.setDirtyCanvas(true, true);
}

// A photograph in the style, with the painting in its corner; one of them where a style has no other.
function tile({ name, thumbnail, example }, index, selected, fits) {
  const picture = element("div", { className: "picture" }, [...name][0].toUpperCase());
  for (const [jpeg, className] of [[example || thumbnail, ""], [example && thumbnail, "painting"]]) {
    if (!jpeg) continue;
    const image = element("img", { className, alt: "", src: `data:image/jpeg;base64,${jpeg}`, draggable: false });
    image.onerror = () => image.remove();
    picture.append(image);
  }
  picture.ariaHidden = true;
  const parts = name.split(/(?<=\/)/).flatMap((part) => [part, element("wbr")]); // folders end a line first
  const label = element("span", {}, ...parts);
  const option = element("div", { role: "option", id: `adain-style-${index}`, ariaSelected: selected }, picture, label);
  option.classList.toggle("unfit", !fits);
  return option;
}

async function openGallery(node) {
  const widget = styleWidget(node);
  const styles = await readStyles(widget);
  if (document.querySelector(".adain-gallery")) return;

  const model = node.widgets.find(({ name }) => name === "model")?.value;
  const fits = (style) => !style.not_for?.includes(model);
  const options = styles.map((style, index) => tile(style, index, style.name === widget.value, fits(style)));
  const list = element("div", { role: "listbox", id: "adain-styles", ariaLabel: translate("Styles"), tabIndex: 0 }, ...options);
  const search = element("input", { type: "text", role: "combobox", autocomplete: "off", spellcheck: false });
  search.placeholder = search.ariaLabel = translate("Filter by name or painter");
  search.ariaExpanded = true;
  search.setAttribute("aria-controls", list.id);
  const close = element("button", { type: "button", ariaLabel: translate("Close"), textContent: "×" });
  const about = element("footer", { ariaLive: "polite" });
  const heading = element("h2", { textContent: translate("Choose a style") });
  const header = element("header", {}, heading, search, close);
  const dialog = element("dialog", { className: "adain-gallery", ariaLabel: heading.textContent }, header, list, about);

  let active; // the option that the keyboard is at
  const shown = () => options.filter((option) => !option.hidden);
  function activate(option) {
    active?.classList.remove("active");
    active = option;
    active?.classList.add("active");
    active?.scrollIntoView({ block: "nearest" });
    for (const box of [search, list]) box.setAttribute("aria-activedescendant", active?.id ?? "");
    const style = styles[options.indexOf(active)];
    const lines = style ? [fits(style) ? "" : translate("Not for the chosen model"), style.source] : [];
    about.textContent = style ? lines.filter(Boolean).join(": ") : translate("There is no such style.");
  }
  function finish(option) {
    dialog.close();
    if (option) choose(node, widget, styles[options.indexOf(option)].name);
  }
  function move(key) {
    const tiles = shown();
    const columns = tiles.filter((option) => option.offsetTop === tiles[0].offsetTop).length;
    const place = tiles.indexOf(active);
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -place, End: tiles.length };
    const next = place + steps[key];
    if (tiles[next]) activate(tiles[next]);
    else if (key === "End") activate(tiles.at(-1));
    return key in steps;
  }

  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the canvas has shortcuts of its own
    if (event.target === close || event.isComposing) return;
    const modified = event.ctrlKey || event.shiftKey || event.altKey || event.metaKey; // such keys edit the filter's text
    if (!modified && move(event.key)) event.preventDefault();
    else if (event.key === "Enter") {
      event.preventDefault(); // or it would press what has the focus next: the button that opened the gallery
      if (active) finish(active);
    } else if (event.key.length === 1 && event.target === list) search.focus(); // and the key is typed there
  });
  search.addEventListener("input", () => {
    const words = plain(search.value).split(/\s+/);
    options.forEach((option, index) => {
      const text = plain(`${styles[index].name} ${styles[index].source}`);
      option.hidden = !words.every((word) => text.includes(word));
    });
    activate(shown()[0]);
  });
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]"); // null between two tiles
    if (option) finish(option);
  });
  list.addEventListener("pointermove", (event) => activate(event.target.closest("[role=option]") ?? active));
  let pressed; // text that is selected out of the filter ends in a click on the dialog
  dialog.addEventListener("pointerdown", (event) => pressed = event.target);
  dialog.addEventListener("click", (event) => event.target === dialog && pressed === dialog && finish());
  close.addEventListener("click", () => finish());
  dialog.addEventListener("close", () => dialog.remove());

  document.body.append(dialog);
  dialog.showModal();
  search.focus();
  activate(options.find((option) => option.ariaSelected === "true") ?? options[0]);
}

function menuItems(node) {
  if (!styleWidget(node)) return [];
  return [{ content: translate("Choose a style by picture"), callback: () => openGallery(node) }];
}

// Last on the node and not saved: workflows keep widgets' values by position.
function addButton(node) {
  const button = node.addWidget("button", BUTTON, null, () => openGallery(node), { serialize: false });
  button.label = translate("Choose by picture");
  button.serialize = false;
}

app.registerExtension({
  name: "AdaIN.Gallery",
  commands: [
    {
      id: COMMAND,
      label: "Choose a style by picture (AdaIN)",
      function() {
        const node = Object.values(app.canvas.selected_nodes).find(styleWidget);
        if (node) return openGallery(node);
        const summary = translate("Select Load Style or Style Transfer first");
        app.extensionManager.toast.add({ severity: "info", summary, life: 4000 });
      },
    },
  ],
  keybindings: [{ commandId: COMMAND, combo: { key: "s", shift: true } }],
  init() {
    document.head.append(element("style", { textContent: LOOK }));
  },
  getNodeMenuItems: menuItems,
  nodeCreated(node) {
    if (node.resolvePromotedTarget) { // the node of a subgraph, where newer hosts show no buttons of the nodes inside
      const offer = () => styleWidget(node) && !node.widgets.some(({ name }) => name === BUTTON) && addButton(node);
      node.subgraph.events.addEventListener("widget-promoted", offer);
      return offer();
    }
    if (!styleWidget(node)) return;
    if (!app.collectNodeMenuItems) { // ComfyUI 0.3.64 does not ask extensions for items
      node.getExtraMenuOptions = (canvas, options) => options.push(...menuItems(node));
    }
    addButton(node);
  },
});
