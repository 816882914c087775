// Values of Rust's standard library (tests/cli/rust_values.py), in a program that lld has linked.
use std::hint::black_box;
use std::rc::Rc;

enum Shape {
    Empty,
    Circle(f64),
    Rect { w: u32, h: u32 },
}
struct Point {
    x: i32,
    y: i32,
}

#[inline(never)]
fn stop(n: u32) -> u32 {
    black_box(n)
}

fn main() {
    let numbers = vec![1, 2, 3];
    let none: Vec<u8> = Vec::new();
    let points = vec![Point { x: 1, y: -2 }, Point { x: 3, y: 4 }];
    let text = String::from("a string");
    let slice: &str = &text[2..];
    let part: &[i32] = &numbers[1..];
    let some = Some(5u8);
    let nothing: Option<u8> = None;
    let niche = Some(&numbers);
    let no_niche: Option<&Vec<i32>> = None;
    let shapes = [Shape::Empty, Shape::Circle(0.5), Shape::Rect { w: 2, h: 3 }];
    let good: Result<String, i32> = Ok("fine".to_string());
    let bad: Result<String, i32> = Err(-1);
    let boxed = Box::new(Point { x: 9, y: 8 });
    let tuple = (1, "two", 3.5);
    let shared = Rc::new(77);
    let n = stop(numbers.len() as u32);
    black_box((&none, &points, slice, part, &some, &nothing, &niche, &no_niche, &shapes));
    black_box((&good, &bad, &boxed, &tuple, &shared, n));
    for s in &shapes {
        if let Shape::Rect { w, h } = s {
            black_box(w * h);
        }
        if let Shape::Circle(r) = s {
            black_box(r);
        }
    }
    for p in &points {
        black_box(p.x + p.y);
    }
}
