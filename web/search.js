// Style Transfer first. ComfyUI's search takes ids for names, and all of ours begin with "AdaIN", so that the shortest of them would
// win. Among names that fit equally well it goes by how often nodes are used, of which its table knows nothing for ours.
import { app } from "../../scripts/app.js";

const USE = 25; // Load Style Model, which "style" finds too, has 21

app.registerExtension({
  name: "AdaIN.Search",
  addCustomNodeDefs(defs) {
    const found = defs.AdaINStyleTransfer;
    if (found) found.postProcessSearchScores = ([fit, , ...rest]) => [fit, -USE, ...rest];
  },
});
