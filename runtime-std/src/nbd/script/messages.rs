//! The messages of an NBD server, valid or not.

pub(crate) fn greeting(flags: u16) -> Vec<u8> {
    [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat()
}

pub(crate) fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let len = data.len() as u32;
    [&0x0003_e889_0455_65a9u64.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &len.to_be_bytes(), data]
        .concat()
}

pub(crate) fn info_export(size: u64, flags: u16) -> Vec<u8> {
    [&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat()
}

pub(crate) fn info_block_size(min: u32, max: u32) -> Vec<u8> {
    [&[0, 3][..], &min.to_be_bytes(), &4096u32.to_be_bytes(), &max.to_be_bytes()].concat()
}

pub(crate) fn simple_reply(error: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
    [&0x6744_6698u32.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes(), data].concat()
}

pub(crate) fn chunk(done: bool, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u32;
    [
        &0x668e_33efu32.to_be_bytes()[..],
        &u16::from(done).to_be_bytes(),
        &kind.to_be_bytes(),
        &cookie.to_be_bytes(),
        &len.to_be_bytes(),
        payload,
    ]
    .concat()
}

pub(crate) fn data(done: bool, cookie: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    chunk(done, 1, cookie, &[&offset.to_be_bytes()[..], data].concat())
}

pub(crate) fn hole(done: bool, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    chunk(done, 2, cookie, &[&offset.to_be_bytes()[..], &len.to_be_bytes()].concat())
}

pub(crate) fn done(cookie: u64) -> Vec<u8> {
    chunk(true, 0, cookie, &[])
}

pub(crate) fn error(done: bool, cookie: u64, error: u32, text: &[u8]) -> Vec<u8> {
    let text_len = text.len() as u16;
    chunk(done, 0x8001, cookie, &[&error.to_be_bytes()[..], &text_len.to_be_bytes(), text].concat())
}
