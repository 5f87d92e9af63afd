//! Streams: created once, found again, never of two shapes.

use segmenter_core::names::Uid;
use segmenter_core::port::{AppendReply, RegisterReply};

use crate::conformance::scene::{message, shape};
use crate::conformance::{Scene, Subject};

pub fn registering_again_with_the_same_shape_finds_the_first(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 3, 10);
    let first = Uid::new("uid-1").unwrap();
    assert_eq!(
        scene.register("uid-2", shape(3, 10), None),
        RegisterReply::Registered {
            uid: first,
            existed: true
        }
    );
}

pub fn another_shape_is_refused_and_told(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 3, 10);
    for other in [shape(4, 10), shape(3, 11)] {
        let reply = scene.register("uid-2", other, Some(5));
        assert_eq!(
            reply,
            RegisterReply::ShapeDiffers {
                found: shape(3, 10)
            }
        );
    }
}

pub fn a_payload_limit_is_part_of_the_shape(subject: &mut dyn Subject) {
    let limited = |bytes| shape(1, 10).with_payload_max(bytes).expect("a shape");
    let mut scene = Scene::bare(subject);
    let made = scene.register("uid-1", limited(7), None);
    assert!(
        matches!(made, RegisterReply::Registered { existed: false, .. }),
        "{made:?}"
    );
    let found = scene.register("uid-2", limited(7), None);
    assert!(
        matches!(found, RegisterReply::Registered { existed: true, .. }),
        "{found:?}"
    );
    for other in [limited(8), shape(1, 10)] {
        let reply = scene.register("uid-2", other, None);
        assert_eq!(reply, RegisterReply::ShapeDiffers { found: limited(7) });
    }
    // The default is what a stream has that was registered without.
    scene.recreate("uid-3", shape(1, 10));
    let found = scene.register("uid-4", limited(1_048_576), None);
    assert!(
        matches!(found, RegisterReply::Registered { existed: true, .. }),
        "{found:?}"
    );
    let reply = scene.register("uid-4", limited(7), None);
    let found = shape(1, 10);
    assert_eq!(reply, RegisterReply::ShapeDiffers { found });
}

pub fn a_stream_that_is_being_deleted_is_not_registered(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 2, 10);
    let stream = scene.stream.clone();
    scene.subject.mark_deleting(&stream);
    assert_eq!(
        scene.register("uid-2", shape(2, 10), None),
        RegisterReply::Deleting
    );
}

pub fn a_deleted_stream_begins_anew_under_another_uid(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    scene.append(3);
    let uid = scene.recreate("uid-2", shape(2, 20));
    assert_eq!(uid.as_str(), "uid-2");
    let old = scene.append_all(vec![message(1)]);
    assert_eq!(
        old,
        Ok(AppendReply::StreamGone),
        "a producer with the old description"
    );
    scene.uid = uid;
    assert!(scene.log_ids().is_empty(), "nothing of the old one is left");
    assert_eq!(scene.lease(), None);
    assert_eq!(scene.append(1).len(), 1);
}
