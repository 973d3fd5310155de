// A picture with a palette in place of all its colours: a quarter of the size.
import UPNG from 'upng-js'

const COLOURS = 128

/** The PNG file `data`, as another PNG file. */
export function small(data) {
  const picture = UPNG.decode(data)
  return Buffer.from(UPNG.encode(UPNG.toRGBA8(picture).slice(0, 1), picture.width, picture.height, COLOURS))
}
