/* What sym_test.c looks at of C++: namespaces, templates, classes, references. */
#include <cstdio>

#define KEEP __attribute__((noinline, used))

namespace shop
{
struct Item {
    int price;
    virtual ~Item()
    {
    }
    virtual int cost() const
    {
        return price;
    }
};

template <typename T> struct Box : Item {
    T content;
    KEEP T &get(int times);
};

template <typename T> T &Box<T>::get(int times)
{
    price += times; /* mark: get body */
    return content;
}

enum class Mood { calm, wild };

struct Owner {
    long id;
    Owner(long i) : id(i)
    {
    }
    KEEP ~Owner()
    {
        id = 0;
    }
};

KEEP int judge(const Item &item, Mood mood, Owner owner)
{
    return item.price + static_cast<int>(mood) + static_cast<int>(owner.id); /* mark: judge body */
}

namespace
{
KEEP int hidden(int &&n)
{
    return n + 1;
}
} // namespace

int counter = 17;
} // namespace shop

int main()
{
    shop::Box<double> box;
    box.price = 3;
    box.content = 6.5;
    auto lambda = [&](int n) { return box.get(n) + 1; };
    double d = lambda(4);
    int j = shop::judge(box, shop::Mood::wild, shop::Owner(77));
    std::printf("%g %d %d\n", d, j, shop::hidden(5));
    return 0;
}
