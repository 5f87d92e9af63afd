//! What a component asks for and what it offers, whether it can run here or not. For people who look at a
//! file; must not know how anything is linked.

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::capabilities;
use crate::engine::Engine;
use crate::kinds::Kind;

/// What a component would be linked with, and what it could be called by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// In its own order; interfaces of which it takes types alone need nothing and are left out.
    pub imports: Vec<Asked>,
    /// In its own order.
    pub exports: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub import: String,
    pub needs: Needs,
}

/// What must be there before an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: it always is.
    Nothing,
    Grant {
        /// As it is written under `[handler.grants]`.
        setting: &'static str,
        /// What `--grant` takes, where there is such a thing.
        flag: Option<&'static str>,
    },
    /// It never is: why, as the end of a sentence about it.
    Unknown(String),
}

pub(crate) fn describe(engine: &Engine, component: &Component) -> Description {
    let exports = exports(engine, component);
    let imports = imports(engine, component).into_iter();
    let own = match Kind::of(&exports)[..] {
        [kind] => kind.imports(),
        _ => &[],
    };
    let asked = imports.map(|import| {
        let needs = capabilities::needs(&import, own);
        Asked { import, needs }
    });
    Description {
        imports: asked.collect(),
        exports,
    }
}

pub(crate) fn exports(engine: &Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let exports = ty.exports(&engine.engine);
    exports.map(|(name, _)| name.to_owned()).collect()
}

/// Without those that are types alone: nothing has to be linked for them.
pub(crate) fn imports(engine: &Engine, component: &Component) -> Vec<String> {
    let ty = component.component_type();
    let imports = ty.imports(&engine.engine).filter(|(_, item)| {
        let ComponentItem::ComponentInstance(instance) = &item.ty else {
            return true;
        };
        let mut items = instance.exports(&engine.engine);
        !items.all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
    });
    imports.map(|(name, _)| name.to_owned()).collect()
}
