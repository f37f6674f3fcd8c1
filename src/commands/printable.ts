/** A text for the terminal, with its control characters spelled out: a hostile file name must not steer it. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
