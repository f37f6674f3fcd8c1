import { rounded, type Series, type Spread } from './measurement.ts';

const WIDTH = 900;
const LEFT = 260;
const RIGHT = 120;
const BAR = 18;
const CHART = 150;

const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped(content)}</text>`;
}

function svg(height: number, parts: readonly string[]): string {
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`;
  return [head, `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`, ...parts, '</svg>', ''].join('\n');
}

interface Bars {
  readonly title: string;
  readonly bars: readonly (Spread & { readonly label: string })[];
}

/** A group of bars a figure: the bar is the median, the line in it reaches from the least to the greatest. */
export function barsSvg(title: string, groups: readonly Bars[]): string {
  const parts = [text(10, 20, title, 'font-weight="bold"')];
  let y = 45;
  for (const { title: figure, bars } of groups) {
    const most = Math.max(...bars.map(({ max }) => max), Number.MIN_VALUE);
    const width = (value: number) => ((WIDTH - LEFT - RIGHT) * value) / most;
    parts.push(text(10, y, figure, 'font-weight="bold" fill="#444"'));
    y += 8;
    for (const [index, { label, min, median, max }] of bars.entries()) {
      const middle = y + BAR / 2;
      parts.push(
        text(LEFT - 8, middle + 4, label, 'text-anchor="end"'),
        `<rect x="${LEFT}" y="${y}" width="${width(median).toFixed(1)}" height="${BAR - 4}" fill="${colourOf(index)}"/>`,
        `<path d="M${(LEFT + width(min)).toFixed(1)} ${middle - 2}H${(LEFT + width(max)).toFixed(1)}" stroke="#000"/>`,
        text(LEFT + width(max) + 6, middle + 3, rounded(median)),
      );
      y += BAR;
    }
    y += 26;
  }
  return svg(y, parts);
}

const colourOf = (index: number) => ['#4477aa', '#66ccee', '#bbbbbb', '#ee6677', '#ccbb44', '#228833'][index % 6] ?? '';

/** A chart a series, from zero, over the same time. */
export function linesSvg(title: string, series: Series): string {
  const parts = [text(10, 20, title, 'font-weight="bold"')];
  const names = Object.entries(series);
  const until = Math.max(1, ...names.flatMap(([, points]) => points.map(([seconds]) => seconds)));
  for (const [index, [name, points]] of names.entries()) {
    const bottom = 45 + (index + 1) * CHART - 30;
    const most = Math.max(Number.MIN_VALUE, ...points.map(([, value]) => value));
    const x = (seconds: number) => LEFT + ((WIDTH - LEFT - 20) * seconds) / until;
    const y = (value: number) => bottom - ((CHART - 45) * value) / most;
    const path = points.map(([seconds, value]) => `${x(seconds).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
    parts.push(
      text(10, bottom - 40, name),
      text(10, bottom - 22, `at most ${rounded(most)}`, 'fill="#777"'),
      text(LEFT - 6, bottom + 4, '0', 'text-anchor="end" fill="#777"'),
      `<path d="M${LEFT} ${bottom}H${WIDTH - 20}" stroke="#999"/>`,
      `<polyline points="${path}" fill="none" stroke="${colourOf(index)}" stroke-width="1.5"/>`,
    );
  }
  const height = 45 + names.length * CHART;
  return svg(height, [
    ...parts,
    text(WIDTH - 20, height - 12, `${Math.round(until / 60)} minutes`, 'text-anchor="end"'),
  ]);
}
