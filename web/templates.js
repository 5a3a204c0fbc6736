// Our templates in the chosen language, in letters large enough to read: their note, titles and labels, where the note is as we wrote
// it. What a person wrote stays.
import { app } from "../../scripts/app.js";
import { english, translated } from "./texts.js";

const TEXT = 14; // pixels; notes have 10 on the canvas and, as elements of the page, on newer hosts

const nameOf = (texts, note) => Object.keys(texts?.notes ?? {}).find((name) => texts.notes[name] === note);

const sizes = document.head.appendChild(document.createElement("style")); // of our notes as elements of the page

app.registerExtension({
  name: "AdaIN.Templates",
  beforeConfigureGraph({ nodes = [], groups = [] }) {
    sizes.textContent = "";
    const [original, texts] = [english("AdaINTemplates"), translated("AdaINTemplates")];
    const ours = (node) => node.type === "MarkdownNote" && nameOf(original, node.widgets_values?.[0]);
    const note = texts && nodes.find(ours);
    if (!note) return;
    note.widgets_values[0] = texts.notes[ours(note)];
    const translate = (item, key) => {
      if (Object.hasOwn(texts.titles, item[key])) item[key] = texts.titles[item[key]];
    };
    for (const item of [...nodes, ...groups]) {
      translate(item, "title");
      for (const input of item.inputs ?? []) translate(input, "label");
    }
  },
  loadedGraphNode(node) {
    if (node.type !== "MarkdownNote") return;
    const [text] = node.widgets;
    if (![english, translated].some((texts) => nameOf(texts("AdaINTemplates"), text.value))) return;
    const chosen = app.extensionManager.setting.get("Comfy.TextareaWidget.FontSize") ?? 0;
    const size = `${Math.max(TEXT, chosen)}px`;
    text.element?.style.setProperty("--comfy-textarea-font-size", size);
    sizes.append(`[data-node-id="${node.id}"] { --comfy-markdown-font-size: ${size}; }\n`);
  },
});
