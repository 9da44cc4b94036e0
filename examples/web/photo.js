// Opening photos: bounded memory, turned upright, colours as stored.

const LARGEST_FILE = 100e6; // bytes
const MOST_PIXELS = 64e6;
const LONGEST_SIDE = 32767;

/** A decoded photo. `close` it when done. */
export class Photo {
  /** @throws a sentence where the file is no image that this browser reads, or too large. */
  static async open(blob, name) {
    if (blob.size === 0) throw new Error(`${name} is empty.`);
    if (blob.size > LARGEST_FILE) throw new Error(`${name} is larger than ${LARGEST_FILE / 1e6} MB.`);
    const { naturalWidth: width, naturalHeight: height } = await sized(blob, name);
    if (width * height > MOST_PIXELS || Math.max(width, height) > LONGEST_SIDE) {
      throw new Error(
        `${name} has ${width} × ${height} pixels; this page takes up to ${MOST_PIXELS / 1e6} million, no side longer ` +
          `than ${LONGEST_SIDE}.`,
      );
    }
    try {
      const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
      return new Photo(await createImageBitmap(blob, options));
    } catch {
      throw new Error(unreadable(name));
    }
  }

  /** @param bitmap an ImageBitmap, a canvas or a video frame. */
  constructor(bitmap) {
    this.bitmap = bitmap;
    this.width = bitmap.width;
    this.height = bitmap.height;
  }

  /** RGBA bytes of a part, what is transparent on black. */
  region(left, top, width, height) {
    if (this.part?.canvas.width !== width || this.part.canvas.height !== height) {
      const canvas = new OffscreenCanvas(width, height);
      this.part = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
      this.part.imageSmoothingEnabled = false;
    }
    this.part.fillRect(0, 0, width, height);
    this.part.drawImage(this.bitmap, left, top, width, height, 0, 0, width, height);
    return this.part.getImageData(0, 0, width, height).data;
  }

  close() {
    this.bitmap.close?.();
    this.part = null;
  }
}

const unreadable = (name) => `${name} is no image that this browser can read.`;

/** An image element that knows its size; the browser has not decoded the pixels yet. */
async function sized(blob, name) {
  const image = new Image();
  image.src = URL.createObjectURL(blob);
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = () => reject(new Error(unreadable(name)));
    });
  } finally {
    URL.revokeObjectURL(image.src);
  }
  return image;
}
