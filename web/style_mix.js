// Style Mix shows a socket and a weight for each style in use, and one free socket more. The node has all of them: those that are not
// shown are added when they are needed, so that workflows are the same with and without this.
import { app } from "../../scripts/app.js";

const MOST = 6;
const FEWEST = 2; // which the node needs

const place = (node, index) => node.inputs.findIndex((input) => input.name === `style_${index}`);

function setHidden(widget, hidden) {
  widget.hidden = hidden; // on the canvas
  if (widget.options) widget.options.hidden = hidden; // as an element of the page
}

function insert(node, index, { type, ...options }) {
  node.addInput(`style_${index}`, type, options);
  const [added] = node.inputs.splice(-1);
  node.inputs.splice(place(node, index - 1) + 1, 0, added);
  node.inputs.forEach((input, slot) => {
    const link = input.link != null && node.graph?.getLink(input.link);
    if (link) link.target_slot = slot;
  });
}

function arrange(node, optional) {
  const used = node.inputs.filter((input) => /^style_\d$/.test(input.name) && input.link != null);
  const last = Math.max(FEWEST, ...used.map((input) => Number(input.name.at(-1))));
  for (const widget of node.widgets) {
    const index = Number(widget.name.match(/^weight_(\d)$/)?.[1]);
    if (index) setHidden(widget, index > last);
  }
  node.widgets = [...node.widgets]; // which elements of the page follow
  for (let index = FEWEST + 1; index <= MOST; index++) {
    const slot = place(node, index);
    if (index > last + 1 && slot >= 0) node.removeInput(slot);
    if (index <= last + 1 && slot < 0) insert(node, index, optional);
  }
  node.setSize([node.size[0], node.computeSize()[1]]);
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "AdaIN.StyleMix",
  nodeCreated(node) {
    if (node.comfyClass !== "AdaINStyleMix") return;
    const { type, shape, tooltip } = node.inputs[place(node, MOST)];
    let waiting = false;
    const later = () => {
      if (waiting) return;
      waiting = true; // until links and values of a workflow that is being loaded are there
      queueMicrotask(() => {
        waiting = false;
        arrange(node, { type, shape, tooltip });
      });
    };
    const changed = node.onConnectionsChange;
    node.onConnectionsChange = function (...change) {
      changed?.apply(this, change);
      later();
    };
    later();
  },
});
