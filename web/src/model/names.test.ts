import { expect, it } from "vitest";
import { scopes, shorten } from "./names";

const text = (name: string): string => shorten(name).map((p) => p.text).join("");
const whole = (name: string): string => shorten(name).map((p) => p.folded ?? p.text).join("");

it("leaves short names alone", () => expect(text("std::vector<int>::push_back")).toBe("std::vector<int>::push_back"));
it("folds outer scopes and template arguments", () => {
  const name = "mozilla::dom::HashTable<mozilla::Key, std::pair<int, long>>::insert<true>";
  expect(text(name)).toBe("…::insert<…>");
  expect(whole(name)).toBe(name);
});
it("does not take operators for brackets", () => {
  const name = "some::very::long::namespace_of_mine::Thing::operator<<";
  expect(text(name)).toBe("…::operator<<");
  expect(text("some::very::long::namespace_of_mine::Thing::operator->")).toBe("…::operator->");
});
it("sees scopes of the outermost level only", () =>
  expect(scopes("a::b<c::d>::(anonymous namespace)::e(f::g)")).toEqual(["a", "b<c::d>", "(anonymous namespace)", "e(f::g)"]));
it("survives unbalanced names", () => expect(whole(`${"x".repeat(40)}<<<(`)).toBe(`${"x".repeat(40)}<<<(`));
