//! The container that nvcc leaves: which cards' code it holds.
//!
//! Layout as `cuobjdump` shows it and others have described it: a header of sixteen bytes (magic,
//! version, header length, length), then images, each with a header of its own that says its kind,
//! its length and the architecture.
//!
//! Invariant: bytes that are no such container are an error, never a panic.

/// The container's first four bytes, little-endian.
const MAGIC: u32 = 0xBA55_ED50;
/// Fields of an image's header that are read.
const MIN_IMAGE_HEADER: usize = 32;

/// What an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageKind {
    /// Text, compiled by the driver.
    Ptx,
    /// Machine code.
    Elf,
}

/// An image of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// What it is.
    pub kind: ImageKind,
    /// 86 for sm_86 and for compute_86.
    pub architecture: u32,
    /// Its bytes, compressed or not.
    pub bytes: &'a [u8],
}

/// The images of `fatbin`; `None` where it is not one, or cut short.
pub fn images(fatbin: &[u8]) -> Option<Vec<Image<'_>>> {
    let header_len = usize::from(u16::from_le_bytes(read(fatbin, 6)?));
    if u32::from_le_bytes(read(fatbin, 0)?) != MAGIC {
        return None;
    }
    let len = usize::try_from(u64::from_le_bytes(read(fatbin, 8)?)).ok()?;
    let mut rest = fatbin.get(header_len..header_len.checked_add(len)?)?;
    let mut images = Vec::new();
    while !rest.is_empty() {
        let kind = match u16::from_le_bytes(read(rest, 0)?) {
            1 => ImageKind::Ptx,
            2 => ImageKind::Elf,
            _ => return None,
        };
        let start = u32::from_le_bytes(read(rest, 4)?) as usize;
        let len = usize::try_from(u64::from_le_bytes(read(rest, 8)?)).ok()?;
        if start < MIN_IMAGE_HEADER {
            return None;
        }
        let end = start.checked_add(len)?;
        images.push(Image {
            kind,
            architecture: u32::from_le_bytes(read(rest, 28)?),
            bytes: rest.get(start..end)?,
        });
        rest = &rest[end..];
    }
    Some(images)
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Vec<u8> {
        let mut image = vec![0u8; 64 + 5];
        image[0] = 2;
        image[4] = 64;
        image[8] = 5;
        image[28] = 86;
        image[64..].copy_from_slice(b"bytes");
        let mut fatbin = MAGIC.to_le_bytes().to_vec();
        fatbin.extend([1, 0, 16, 0]);
        fatbin.extend((image.len() as u64).to_le_bytes());
        fatbin.extend(image);
        fatbin
    }

    #[test]
    fn an_image_by_hand() {
        let fatbin = container();
        let expected = Image {
            kind: ImageKind::Elf,
            architecture: 86,
            bytes: b"bytes",
        };
        assert_eq!(images(&fatbin), Some(vec![expected]));
    }

    #[test]
    fn a_damaged_container_is_refused() {
        let fatbin = container();
        for len in 0..fatbin.len() {
            assert_eq!(images(&fatbin[..len]), None, "{len}");
        }
        for at in [0, 7, 9, 16, 23, 30] {
            let mut damaged = fatbin.clone();
            damaged[at] ^= 0xF0;
            let whole = images(&damaged);
            assert!(whole.is_none() || at == 30, "{at}: {whole:?}");
        }
    }
}
