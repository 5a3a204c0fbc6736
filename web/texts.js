// The texts of locales/, which are in groups.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const languages = await api.getCustomNodesI18n().catch(() => ({}));

export const english = (group) => languages.en?.[group];

/** A group in the language of the page; undefined where there is none. */
export const translated = (group) => languages[app.extensionManager.setting.get("Comfy.Locale")]?.[group];
