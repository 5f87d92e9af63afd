//! What guests may call or see, one file per interface of the outside. This one knows what is there for
//! whom: which imports are linked, by which grant, and how a grant is written.

mod config;
mod context;
mod emit;
mod env;
mod files;
mod http;
pub(crate) mod keyvalue;
mod logging;
mod state;

use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::WasiCtx;

use crate::bindings::{segmenter, wasi};
use crate::grants::Grants;
use crate::instance::State;
use crate::output::{Output, Stream};

pub(crate) use emit::NotEmitted;
pub(crate) use http::Http;

/// Something that a component may import.
pub(crate) struct Import {
    /// How its name begins.
    name: &'static str,
    /// Drafts are matched exactly; where there is none, linking finds out whether a version fits.
    version: Option<&'static str>,
    given: Given,
}

enum Given {
    Always,
    By(&'static Grant),
    /// It is known, and not here: why.
    Never(&'static str),
}

pub(crate) struct Grant {
    is_given: fn(&Grants) -> bool,
    /// As it is written in the configuration.
    setting: &'static str,
    /// What `run HANDLER.wasm` takes.
    flag: Option<&'static str>,
}

pub(crate) static STATE: Grant = Grant {
    is_given: |grants| grants.state,
    setting: "state = true",
    flag: Some("state"),
};
pub(crate) static EMIT: Grant = Grant {
    is_given: |grants| !grants.emit.is_empty(),
    setting: "emit = [\"STREAM\"]",
    flag: Some("emit=STREAM"),
};
static HTTP: Grant = Grant {
    is_given: |grants| !grants.http.is_empty(),
    setting: "http = [\"https://HOST\"]",
    flag: Some("http=https://HOST"),
};
pub(crate) static CONFIG: Grant = Grant {
    is_given: |grants| grants.config.is_some(),
    setting: "config = { NAME = \"VALUE\" }",
    flag: None,
};

pub(crate) const fn always(name: &'static str, version: Option<&'static str>) -> Import {
    Import {
        name,
        version,
        given: Given::Always,
    }
}

pub(crate) const fn granted(
    name: &'static str,
    version: Option<&'static str>,
    grant: &'static Grant,
) -> Import {
    Import {
        name,
        version,
        given: Given::By(grant),
    }
}

/// `why` follows its name in what is told.
pub(crate) const fn absent(name: &'static str, why: &'static str) -> Import {
    Import {
        name,
        version: None,
        given: Given::Never(why),
    }
}

impl Grant {
    pub(crate) fn is_given(&self, grants: &Grants) -> bool {
        (self.is_given)(grants)
    }
}

/// Of any component.
static IMPORTS: [Import; 16] = [
    always("wasi:cli/", None),
    always("wasi:io/", None),
    always("wasi:clocks/", None),
    always("wasi:random/", None),
    always("wasi:filesystem/", None),
    always("wasi:sockets/", None),
    always("wasi:logging/logging", Some("0.1.0-draft")),
    always("segmenter:handler/context", None),
    granted("segmenter:handler/state", None, &STATE),
    granted("segmenter:handler/emit", None, &EMIT),
    granted("wasi:config/store", Some("0.2.0-rc.1"), &CONFIG),
    granted("wasi:keyvalue/store", Some("0.2.0-draft"), &STATE),
    granted("wasi:keyvalue/atomics", Some("0.2.0-draft"), &STATE),
    granted("wasi:keyvalue/batch", Some("0.2.0-draft"), &STATE),
    granted("wasi:http/types", None, &HTTP),
    granted("wasi:http/outgoing-handler", None, &HTTP),
];

/// Why an import is not there, or `None` if it should be. `own`: those of the component's kind.
pub(crate) fn missing(import: &str, own: &[Import], grants: &Grants) -> Option<String> {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    let known = own
        .iter()
        .chain(&IMPORTS)
        .find(|known| match known.name.ends_with(['/', ':']) {
            true => name.starts_with(known.name),
            false => name == known.name,
        });
    let Some(known) = known else {
        return Some("this host does not have".to_owned());
    };
    if name.starts_with("wasi:") && version.starts_with("0.3.") {
        return Some("is WASI 0.3; this host has WASI 0.2".to_owned());
    }
    if let Given::Never(why) = known.given {
        return Some(why.to_owned());
    }
    if let Given::By(grant) = known.given
        && !grant.is_given(grants)
    {
        let Grant { setting, flag, .. } = grant;
        let flag = flag.map_or(String::new(), |flag| {
            format!(", or run it with --grant {flag}")
        });
        return Some(format!(
            "needs a grant: write `{setting}` under [handler.grants]{flag}"
        ));
    }
    match known.version {
        Some(has) if has != version => {
            let why = match has.contains('-') {
                true => ", and drafts must match exactly",
                false => " and no other",
            };
            Some(format!(
                "is another version; this host has {name}@{has}{why}"
            ))
        }
        _ => None,
    }
}

/// WASI 0.2 is always there, because plain guests of most languages import it; what it gives is [`wasi`].
pub(crate) fn link(linker: &mut Linker<State>, grants: &Grants) -> wasmtime::Result<()> {
    type Has = HasSelf<State>;
    fn itself(state: &mut State) -> &mut State {
        state
    }
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasi::logging::logging::add_to_linker::<_, Has>(linker, itself)?;
    segmenter::handler::context::add_to_linker::<_, Has>(linker, itself)?;
    if STATE.is_given(grants) {
        segmenter::handler::state::add_to_linker::<_, Has>(linker, itself)?;
        wasi::keyvalue::store::add_to_linker::<_, Has>(linker, itself)?;
        wasi::keyvalue::atomics::add_to_linker::<_, Has>(linker, itself)?;
        wasi::keyvalue::batch::add_to_linker::<_, Has>(linker, itself)?;
    }
    if EMIT.is_given(grants) {
        segmenter::handler::emit::add_to_linker::<_, Has>(linker, itself)?;
    }
    if CONFIG.is_given(grants) {
        wasi::config::store::add_to_linker::<_, Has>(linker, itself)?;
    }
    if HTTP.is_given(grants) {
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    }
    Ok(())
}

/// What WASI gives to an instance: nothing but its output and what is granted, to a shadow nothing that it
/// could change. The error is for people.
pub(crate) fn wasi(grants: &Grants, output: &Output, shadow: bool) -> Result<WasiCtx, String> {
    let mut wasi = WasiCtx::builder();
    wasi.stdout(output.stream(Stream::Stdout))
        .stderr(output.stream(Stream::Stderr));
    env::give(&mut wasi, &grants.env);
    files::give(&mut wasi, &grants.files, shadow)?;
    Ok(wasi.build())
}
