// Labels of the values that lists offer, in the chosen language. The values themselves, which workflows store, stay.
import { app } from "../../scripts/app.js";
import { english, translated } from "./texts.js";

// The labels' group in locales/ is named as the input; where it is not:
const GROUPS = {
  AdaINLoadEncoder: { name: "model" },
  AdaINLoadDecoder: { name: "model" },
  AdaINTrainDecoder: { start_from: "model", contents: "folder", styles: "folder" },
};

const labelOf = (group, value) => translated("AdaINOptions")?.[group]?.[value] ?? value ?? "";

app.registerExtension({
  name: "AdaIN.Labels",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("AdaIN")) return;
    for (const widget of node.widgets ?? []) {
      const group = GROUPS[node.comfyClass]?.[widget.name] ?? widget.name;
      if (english("AdaINOptions")?.[group]) widget.options.getOptionLabel = (value) => labelOf(group, value);
    }
  },
});
