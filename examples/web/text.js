// Texts that other people wrote: in files, and the names of files.

const LONGEST = 500; // characters
// Control characters, and what reorders the text around it.
const OBEYED = /[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu;

/** A text as it can be shown: without what a page or a screen reader would obey, and not without end. */
export function plain(text) {
  const shown = text.replace(OBEYED, " ");
  return shown.length > LONGEST ? `${shown.slice(0, LONGEST)}…` : shown;
}
