// Labels of the values that lists offer, in the chosen language. The values themselves, which workflows store, stay.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

// The labels' group in locales/ is named as the input; where it is not:
const GROUPS = {
  AdaINLoadEncoder: { name: "model" },
  AdaINLoadDecoder: { name: "model" },
  AdaINTrainDecoder: { start_from: "model", contents: "folder", styles: "folder" },
};

let translations = {}; // by language, what each extension has in its locales/

function labelOf(group, value) {
  const language = app.extensionManager.setting.get("Comfy.Locale");
  return translations[language]?.AdaINOptions?.[group]?.[value] ?? value ?? "";
}

app.registerExtension({
  name: "AdaIN.Labels",
  async init() {
    translations = await api.getCustomNodesI18n();
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("AdaIN")) return;
    for (const widget of node.widgets ?? []) {
      const group = GROUPS[node.comfyClass]?.[widget.name] ?? widget.name;
      if (translations.en?.AdaINOptions?.[group]) widget.options.getOptionLabel = (value) => labelOf(group, value);
    }
  },
});
