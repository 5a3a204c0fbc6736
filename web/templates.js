// Our templates in the chosen language: their note, titles and labels, where these are as we wrote them. What is saved stays so.
import { app } from "../../scripts/app.js";
import { english, translated } from "./texts.js";

app.registerExtension({
  name: "AdaIN.Templates",
  beforeConfigureGraph({ nodes = [], groups = [] }) {
    const [original, texts] = [english("AdaINTemplates"), translated("AdaINTemplates")];
    if (!original || !texts) return;
    const name = (node) => Object.keys(original.notes).find((name) => original.notes[name] === node.widgets_values?.[0]);
    const note = nodes.find((node) => node.type === "MarkdownNote" && name(node));
    if (!note) return;
    note.widgets_values[0] = texts.notes[name(note)];
    const translate = (item, key) => {
      if (Object.hasOwn(texts.titles, item[key])) item[key] = texts.titles[item[key]];
    };
    for (const item of [...nodes, ...groups]) {
      translate(item, "title");
      for (const input of item.inputs ?? []) translate(input, "label");
    }
  },
});
