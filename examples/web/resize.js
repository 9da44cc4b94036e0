// Photos to the pixels a model takes: Pillow's resampling, so that a file sees here what it was verified on.

const PRECISION_BITS = 22; // of Pillow's fixed-point weights
const STRIP = 256; // rows or columns of a photo at once

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weight(x) {
      const a = -0.5;
      x = Math.abs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
      return 0;
    },
  },
  lanczos3: { support: 3, weight: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** Python's round: halves go to the even neighbour. */
function roundHalfToEven(x) {
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

/**
 * Where a photo lands in the model's input.
 *
 * Returns the size it is resized to and the position of its top left corner in the input: negative where it is cropped,
 * positive where black is left around it.
 */
export function layout(photoWidth, photoHeight, preprocessing) {
  const [height, width] = preprocessing.size;
  const [fitHeight, fitWidth] = preprocessing.resize ?? preprocessing.size;
  let resized = { width: fitWidth, height: fitHeight };
  let left = 0;
  let top = 0;
  if (preprocessing.rule === "cover") {
    const scale = Math.max(fitHeight / photoHeight, fitWidth / photoWidth);
    resized = { width: roundHalfToEven(photoWidth * scale), height: roundHalfToEven(photoHeight * scale) };
    left = -Math.floor((resized.width - width) / 2);
    top = -Math.floor((resized.height - height) / 2);
  } else {
    if (preprocessing.rule === "pad") {
      if (photoWidth / photoHeight > fitWidth / fitHeight) {
        resized.height = Math.max(1, roundHalfToEven((photoHeight / photoWidth) * fitWidth));
      } else {
        resized.width = Math.max(1, roundHalfToEven((photoWidth / photoHeight) * fitHeight));
      }
    }
    left = roundHalfToEven((fitWidth - resized.width) / 2) - Math.floor((fitWidth - width) / 2);
    top = roundHalfToEven((fitHeight - resized.height) / 2) - Math.floor((fitHeight - height) / 2);
  }
  return { ...resized, left, top };
}

/** For each wanted position along one axis: the first source position, and the fixed-point weights from there on. */
function weightsAlong(sourceSize, size, start, count, interpolation) {
  const scale = sourceSize / size;
  const taps = [];
  if (size === sourceSize || interpolation === "nearest") {
    let position = scale / 2; // summed up, as Pillow does: it matters where a position is half way
    for (let i = 0; i < start + count; i++, position += scale) {
      if (i >= start) taps.push({ first: Math.floor(position), weights: [1 << PRECISION_BITS] });
    }
    return taps;
  }
  const filter = FILTERS[interpolation];
  for (let i = start; i < start + count; i++) {
    const center = (i + 0.5) * scale;
    const stretch = Math.max(scale, 1); // wider than the filter where the photo shrinks: antialiasing
    const support = filter.support * stretch;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(sourceSize, Math.trunc(center + support + 0.5));
    const weights = [];
    for (let j = first; j < end; j++) weights.push(filter.weight((j - center + 0.5) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0);
    taps.push({ first, weights: weights.map((weight) => Math.round((weight / sum) * 2 ** PRECISION_BITS)) });
  }
  return taps;
}

const toByte = (sum) => Math.min(255, Math.max(0, Math.floor((sum + 2 ** (PRECISION_BITS - 1)) / 2 ** PRECISION_BITS)));

/** RGBA rows as planes without alpha; one channel is luma by ITU-R 601, as in Pillow. */
function withoutAlpha(rgba, channels) {
  const pixels = new Uint8Array((rgba.length / 4) * channels);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += channels) {
    if (channels === 1) {
      pixels[to] = (rgba[from] * 19595 + rgba[from + 1] * 38470 + rgba[from + 2] * 7471 + 0x8000) >> 16;
    } else {
      pixels[to] = rgba[from];
      pixels[to + 1] = rgba[from + 1];
      pixels[to + 2] = rgba[from + 2];
    }
  }
  return pixels;
}

/** One pass along lines of `width` pixels, the first of which is the photo's column `firstColumn`. */
function alongX(source, width, channels, taps, firstColumn) {
  const height = source.length / (width * channels);
  const result = new Uint8Array(taps.length * height * channels);
  let to = 0;
  for (let y = 0; y < height; y++) {
    for (const { first, weights } of taps) {
      for (let channel = 0; channel < channels; channel++) {
        let from = (y * width + first - firstColumn) * channels + channel;
        let sum = 0;
        for (const weight of weights) {
          sum += weight * source[from];
          from += channels;
        }
        result[to++] = toByte(sum);
      }
    }
  }
  return result;
}

/** One pass across lines of `lineSize` bytes, the first of which is the photo's row `firstRow`. */
function alongY(source, lineSize, taps, firstRow) {
  const result = new Uint8Array(taps.length * lineSize);
  let to = 0;
  for (const { first, weights } of taps) {
    for (let x = 0; x < lineSize; x++) {
      let from = (first - firstRow) * lineSize + x;
      let sum = 0;
      for (const weight of weights) {
        sum += weight * source[from];
        from += lineSize;
      }
      result[to++] = toByte(sum);
    }
  }
  return result;
}

/** Copies lines of `lineSize` bytes into a larger picture. */
function paste(source, lineSize, target, targetLineSize, position) {
  for (let from = 0; from < source.length; from += lineSize, position += targetLineSize) {
    target.set(source.subarray(from, from + lineSize), position);
  }
}

const span = (taps) => ({
  first: Math.min(...taps.map((tap) => tap.first)),
  end: Math.max(...taps.map((tap) => tap.first + tap.weights.length)),
});

/**
 * Raw pixels of a photo, resized and cropped as a file's metadata say.
 *
 * Only what ends up in the input is computed, a strip of the photo at a time: a large photo takes little memory.
 *
 * @param photo `{width, height, region(left, top, width, height)}`, the last gives RGBA bytes.
 * @param preprocessing of the metadata: `{size: [h, w], channels, resize, interpolation, rule}`.
 * @returns Uint8Array of height * width * channels.
 */
export function toPixels(photo, preprocessing) {
  const [height, width] = preprocessing.size;
  const { channels, interpolation } = preprocessing;
  const place = layout(photo.width, photo.height, preprocessing);
  const visible = (offset, size, inputSize) => {
    const start = Math.max(0, -offset);
    return [start, Math.max(0, Math.min(size, inputSize - offset) - start)];
  };
  const [startX, columns] = visible(place.left, place.width, width);
  const [startY, lines] = visible(place.top, place.height, height);
  const across = weightsAlong(photo.width, place.width, startX, columns, interpolation);
  const down = weightsAlong(photo.height, place.height, startY, lines, interpolation);
  const [x, y] = [span(across), span(down)];
  const read = (left, top, right, bottom) =>
    withoutAlpha(photo.region(left, top, right - left, bottom - top), channels);

  let visiblePixels;
  // Each pass rounds, so the order of Pillow 13 counts: the height first where it shrinks by over twice as many pixels.
  const shrinksBy = [photo.width - place.width, photo.height - place.height];
  if (shrinksBy[1] > 0 && shrinksBy[1] > 2 * shrinksBy[0]) {
    const lineSize = (x.end - x.first) * channels;
    const flattened = new Uint8Array(lines * lineSize);
    for (let left = x.first; left < x.end; left += STRIP) {
      const right = Math.min(left + STRIP, x.end);
      const stripSize = (right - left) * channels;
      const strip = alongY(read(left, y.first, right, y.end), stripSize, down, y.first);
      paste(strip, stripSize, flattened, lineSize, (left - x.first) * channels);
    }
    visiblePixels = alongX(flattened, x.end - x.first, channels, across, x.first);
  } else {
    const lineSize = columns * channels;
    const narrowed = new Uint8Array((y.end - y.first) * lineSize);
    for (let top = y.first; top < y.end; top += STRIP) {
      const strip = read(x.first, top, x.end, Math.min(top + STRIP, y.end));
      narrowed.set(alongX(strip, x.end - x.first, channels, across, x.first), (top - y.first) * lineSize);
    }
    visiblePixels = alongY(narrowed, lineSize, down, y.first);
  }
  const pixels = new Uint8Array(height * width * channels);
  const corner = ((startY + place.top) * width + startX + place.left) * channels;
  paste(visiblePixels, columns * channels, pixels, width * channels, corner);
  return pixels;
}
